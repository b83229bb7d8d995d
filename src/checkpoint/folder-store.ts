/**
 * Checkpoints in a folder. A checkpoint is the folder `step-N` in it, with shards and a manifest. It
 * is written as a draft, a folder under another name, which is renamed when all of it is on disk. So
 * a `step-N` is whole, and what a killed process leaves has a draft's name. How a writer has ended
 * is told by the name of its file: a rename needs no space on a full disk.
 */
import { existsSync } from "node:fs";
import {
  mkdir,
  open,
  readdir,
  rename,
  rm,
  rmdir,
  stat,
  truncate,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { LockstepError } from "../errors.ts";
import {
  fileError,
  makeFolder,
  openRange,
  readFileWhole,
  syncFolder,
  writeFileAtomic,
} from "../files/index.ts";
import { untilAllEnded } from "./gather.ts";
import { MANIFEST, type Manifest, manifestText, readManifest, type Shard } from "./manifest.ts";
import { asideName, draftName, draftOf, isMark, stepName, stepOf, writing } from "./names.ts";
import { filesOf, type Source, sourceOf } from "./read.ts";
import type { CheckpointStore, Hold, ShardBytes } from "./store.ts";
import { writeHashed } from "./write.ts";

/** The milliseconds between two looks at the shards of others. */
const LOOK_MS = 10;

export class FolderStore implements CheckpointStore {
  readonly place: string;
  readonly isEverywhere = false;
  readonly isOnDisk = true;

  constructor(folder: string) {
    this.place = folder;
  }

  async hold(): Promise<Hold> {
    // It lies in the run's folder, which has a lock.
    return { release: async () => undefined };
  }

  pathOf(step: number): string {
    return join(this.place, stepName(step));
  }

  async steps(): Promise<number[]> {
    if (!existsSync(this.place)) return [];
    try {
      const names = await readdir(this.place);
      return names.flatMap((name) => stepOf(name) ?? []).sort((a, b) => a - b);
    } catch (error) {
      throw fileError(error, "list", this.place);
    }
  }

  async manifest(step: number): Promise<Manifest> {
    const checkpoint = this.pathOf(step);
    const path = join(checkpoint, MANIFEST);
    const file = await openRange(path).catch((error: unknown) => {
      if (error instanceof LockstepError && error.code === "FILE_NOT_FOUND") return undefined;
      throw error;
    });
    const read = async () => {
      const bytes = new Uint8Array(file?.byteLength ?? 0);
      await file?.read(0, bytes);
      return bytes;
    };
    try {
      return await readManifest({ checkpoint, path, step, byteLength: file?.byteLength, read });
    } finally {
      await file?.close();
    }
  }

  source(step: number, manifest: Manifest): Source {
    const names = manifest.shards.map(({ file }) => join(this.pathOf(step), file));
    return sourceOf(filesOf(names), manifest);
  }

  async begin(step: number, writers: readonly number[]): Promise<string> {
    const draft = draftName(step);
    const folder = join(this.place, draft);
    try {
      await makeFolder(this.place);
      await this.removeDrafts();
      await mkdir(folder);
      // A writer whose disk is full cannot make a file, but it can rename one.
      for (const rank of writers) await writeFile(join(folder, writing.part(rank)), "");
    } catch (error) {
      await this.discard(draft);
      throw fileError(error, "write", this.pathOf(step));
    }
    return draft;
  }

  async write(draft: string, rank: number, shard: ShardBytes): Promise<void> {
    const folder = join(this.place, draft);
    const path = join(folder, writing.part(rank));
    try {
      const sha256 = await writeHashed(path, shard);
      await rename(path, join(folder, writing.done(rank, sha256)));
    } catch (thrown) {
      const error = fileError(thrown, "write", this.#goalOf(draft));
      const code = error instanceof LockstepError ? error.code : "BUG";
      // If the leader has given the draft up, the file is not there any more.
      await truncate(path).catch(() => undefined);
      await rename(path, join(folder, writing.failed(rank, code))).catch(() => undefined);
      throw error;
    }
  }

  async gather(draft: string, writers: readonly number[], signal?: AbortSignal): Promise<Shard[]> {
    const [folder, path] = [join(this.place, draft), this.#goalOf(draft)];
    try {
      const look = () => namesAndSizes(folder);
      const found = await untilAllEnded({ path, writers, look, pauseMs: LOOK_MS, signal });
      const shards: Shard[] = [];
      for (const [index, rank] of writers.entries()) {
        const sha256 = found.get(rank) as string;
        const file = shardName(index, writers.length);
        await rename(join(folder, writing.done(rank, sha256)), join(folder, file));
        shards.push({ file, byteLength: (await stat(join(folder, file))).size, sha256 });
      }
      return shards;
    } catch (error) {
      throw fileError(error, "write", path);
    }
  }

  /** The checkpoint that a draft will be. */
  #goalOf(draft: string): string {
    return this.pathOf(draftOf(draft)?.step ?? 0);
  }

  async publish(draft: string, manifest: Manifest): Promise<string> {
    const path = this.pathOf(manifest.step);
    const folder = join(this.place, draft);
    try {
      await writeFlushed(join(folder, MANIFEST), manifestText(manifest));
      await syncFolder(folder);
      const old = existsSync(path) ? join(this.place, draftName(manifest.step)) : undefined;
      if (old !== undefined) await rename(path, old);
      try {
        await rename(folder, path);
      } catch (error) {
        if (old !== undefined) await rename(old, path);
        throw error;
      }
      await syncFolder(this.place);
      if (old !== undefined) await rm(old, { recursive: true, force: true });
    } catch (error) {
      throw fileError(error, "write", path);
    }
    return path;
  }

  /** Also removes the folder of checkpoints if nothing else is in it. */
  async discard(draft: string): Promise<void> {
    await rm(join(this.place, draft), { recursive: true, force: true }).catch(() => undefined);
    await rmdir(this.place).catch(() => undefined);
  }

  async removeDrafts(): Promise<void> {
    if (!existsSync(this.place)) return;
    for (const name of await readdir(this.place)) {
      if (draftOf(name) === undefined && !isMark(name)) continue;
      await rm(join(this.place, name), { recursive: true, force: true });
    }
  }

  async readText(name: string): Promise<string | undefined> {
    const path = join(this.place, name);
    if (!existsSync(path)) return undefined;
    return new TextDecoder().decode(await readFileWhole(path));
  }

  async writeText(name: string, text: string): Promise<void> {
    const path = join(this.place, name);
    try {
      await makeFolder(this.place);
      await writeFileAtomic(path, text);
    } catch (error) {
      throw fileError(error, "write", path);
    }
  }

  async removeText(name: string): Promise<void> {
    const path = join(this.place, name);
    try {
      await rm(path, { force: true });
    } catch (error) {
      throw fileError(error, "write", path);
    }
  }

  /** The checkpoint has a draft's name while its files are being removed. */
  async remove(step: number): Promise<void> {
    const name = join(this.place, draftName(step));
    await rename(this.pathOf(step), name);
    await rm(name, { recursive: true, force: true });
  }

  /** It replaces an earlier one of that name. */
  async setAside(step: number): Promise<void> {
    const aside = join(this.place, asideName(step));
    await rm(aside, { recursive: true, force: true });
    await rename(this.pathOf(step), aside);
  }

  async putAway(): Promise<void> {
    // They lie in the folder of the run, and go with it.
  }
}

/** The draft that it is in becomes visible as a whole. */
async function writeFlushed(path: string, text: string): Promise<void> {
  const file = await open(path, "wx");
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function namesAndSizes(folder: string): Promise<{ names: string[]; progress: string }> {
  const names = await readdir(folder);
  const sizes = await Promise.all(
    names.map((name) => stat(join(folder, name)).then(({ size }) => size, Number)),
  );
  return { names, progress: sizes.join() };
}

function shardName(index: number, count: number): string {
  const digits = (value: number) => String(value).padStart(5, "0");
  return `shard-${digits(index + 1)}-of-${digits(count)}.safetensors`;
}
