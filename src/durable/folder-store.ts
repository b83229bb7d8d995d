/**
 * A store in a folder, which may lie on storage that several machines share. Each owner appends to a
 * file of its own, `state-TERM.log`. To make that file is to take the store over: it is made only if
 * no one else has made it, and an owner that finds a file of a higher term after a write knows that
 * the next owner may not have read what it wrote. So nobody relies on the other's lock: that only
 * keeps a second coordinator away while the first lives (`run/lock.ts`).
 */
import { type FileHandle, open, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import {
  fileError,
  makeFolder,
  readFileWhole,
  syncFolder,
  writeFileAtomic,
} from "../files/index.ts";
import { type FolderLock, type LockOptions, lockFolder } from "../run/index.ts";
import { lastLine, lineOf } from "./lines.ts";
import { fenced, LatestWriter, type StateStore } from "./store.ts";

/** A file is written anew when it is longer than this and than four states. */
const LONG_BYTES = 2 ** 20;

/**
 * @throws RUN_LOCKED while another coordinator has the folder and lives; what reading and writing
 *   throws
 */
export async function openFolderStore(
  path: string,
  options: LockOptions = {},
): Promise<StateStore> {
  const folder = { path, file: (name: string) => join(path, name) };
  const lock = await lockFolder(folder, { what: "A run is being led from", ...options });
  try {
    return await FolderStore.take(path, lock);
  } catch (error) {
    lock.release();
    throw fileError(error, "write", path);
  }
}

class FolderStore implements StateStore {
  readonly place: string;
  readonly term: number;
  readonly last: unknown;
  readonly #lock: FolderLock;
  readonly #writer = new LatestWriter((text) => this.#put(text));
  #file: FileHandle;
  #bytes = 0;
  #isOpen = true;

  private constructor(
    path: string,
    lock: FolderLock,
    term: number,
    file: FileHandle,
    last: unknown,
  ) {
    this.place = path;
    this.#lock = lock;
    this.term = term;
    this.#file = file;
    this.last = last;
  }

  static async take(path: string, lock: FolderLock): Promise<FolderStore> {
    await makeFolder(path);
    const { term, file } = await claim(path);
    try {
      await syncFolder(path);
      // From here on, whatever an older owner writes is refused.
      const older = (await termsIn(path)).filter((one) => one < term);
      const last = await lastOf(path, older);
      const store = new FolderStore(path, lock, term, file, last?.state);
      if (last !== undefined) await store.write(last.state);
      await removeOlder(path, older);
      return store;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  write(state: unknown): Promise<void> {
    return this.#writer.write(state);
  }

  async close(): Promise<void> {
    await this.#writer.idle();
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.#file.close();
    this.#lock.release();
  }

  async #put(text: string): Promise<void> {
    await this.#requireTerm();
    const line = lineOf(text);
    const path = fileOf(this.place, this.term);
    try {
      if (this.#bytes > Math.max(LONG_BYTES, 4 * line.byteLength)) {
        await writeFileAtomic(path, line);
        await this.#file.close();
        this.#file = await open(path, "r+");
        this.#bytes = 0;
      } else {
        // What a write has left that failed is overwritten.
        await this.#file.truncate(this.#bytes);
        for (let done = 0; done < line.byteLength; ) {
          const rest = line.byteLength - done;
          done += (await this.#file.write(line, done, rest, this.#bytes + done)).bytesWritten;
        }
        await this.#file.datasync();
      }
    } catch (error) {
      throw fileError(error, "write", path);
    }
    this.#bytes += line.byteLength;
    await this.#requireTerm();
  }

  async #requireTerm(): Promise<void> {
    const highest = Math.max(...(await termsIn(this.place)), 0);
    if (highest > this.term) throw fenced(this.place, this.term, highest);
  }
}

function fileOf(path: string, term: number): string {
  return join(path, `state-${term}.log`);
}

/** Removes the files of earlier owners, and those that they did not finish. */
async function removeOlder(path: string, older: readonly number[]): Promise<void> {
  const unfinished = (await readdir(path)).filter((name) => /^\.state-.*\.tmp$/.test(name));
  const paths = [
    ...older.map((term) => fileOf(path, term)),
    ...unfinished.map((n) => join(path, n)),
  ];
  for (const one of paths) await rm(one, { force: true });
}

/** Ascending. */
async function termsIn(path: string): Promise<number[]> {
  const names = await readdir(path);
  const terms = names.flatMap((name) => /^state-(\d{1,15})\.log$/.exec(name)?.[1] ?? []);
  return terms.map(Number).sort((a, b) => a - b);
}

/** Makes the file of the next term. Of several that try at once, one gets each term. */
async function claim(path: string): Promise<{ term: number; file: FileHandle }> {
  for (;;) {
    const term = ((await termsIn(path)).at(-1) ?? 0) + 1;
    try {
      return { term, file: await open(fileOf(path, term), "wx+") };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
  }
}

/** The last state of the highest term that has one: an owner may have ended before its first. */
async function lastOf(
  path: string,
  terms: readonly number[],
): Promise<{ readonly state: unknown } | undefined> {
  for (const term of terms.toReversed()) {
    const found = lastLine(await readFileWhole(fileOf(path, term)));
    if (found !== undefined) return found;
  }
  return undefined;
}
