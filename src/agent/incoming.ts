/**
 * Receives the files of a job: writes their pieces to a folder of their own, and checks that each
 * file has the size that was announced.
 */
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { LockstepError } from "../errors.ts";
import { fileError } from "../files/index.ts";
import { makeJobFolder, removeJobFolder } from "../job/index.ts";
import { type AgentJob, PIECES_AHEAD } from "../protocol/index.ts";

export interface IncomingOptions {
  readonly files: AgentJob["files"];
  /** The most bytes of all files together. */
  readonly maxBytes: number;
  /** Asks the launcher for this many more pieces. */
  readonly more: (pieces: number) => void;
}

export class IncomingJob {
  /**
   * Resolves with the folder when all files are complete. Rejects with PROTOCOL, DISK_FULL,
   * IO_FAILED or ABORTED.
   */
  readonly folder: Promise<string>;
  readonly #options: IncomingOptions;
  readonly #queue: Uint8Array[] = [];
  /** The number of pieces that were asked for and have not come yet. */
  #asked = 0;
  #wake: () => void = () => undefined;
  #error: Error | undefined;
  #made: string | undefined;

  /** Throws INVALID_OPTION for a job that is larger than allowed. */
  constructor(options: IncomingOptions) {
    const { files, maxBytes } = options;
    const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
    if (bytes > maxBytes) {
      throw new LockstepError(
        "INVALID_OPTION",
        `The job is of ${bytes} bytes, and this agent takes ${maxBytes} at most.`,
        {
          hint: "Start the agent with a larger --max-job. Weights that lie in a file of data need not travel.",
          fields: { bytes, maxBytes },
        },
      );
    }
    this.#options = options;
    this.folder = this.#write();
    this.folder.catch(() => undefined);
  }

  /** Takes the next piece. Throws PROTOCOL for a piece that was not asked for. */
  take(piece: string): void {
    if (this.#asked === 0)
      throw new LockstepError("PROTOCOL", "A piece of a job came out of turn.");
    this.#asked--;
    this.#queue.push(Buffer.from(piece, "base64"));
    this.#wake();
  }

  /** Stops taking pieces. */
  abort(): void {
    this.#error ??= new LockstepError("ABORTED", "The job was given up.");
    this.#wake();
  }

  /** Removes the folder. Files that are open stay readable for those who opened them. */
  async remove(): Promise<void> {
    if (this.#made !== undefined) await removeJobFolder(this.#made).catch(() => undefined);
  }

  async #write(): Promise<string> {
    const folder = await makeJobFolder();
    this.#made = folder;
    this.#ask(PIECES_AHEAD);
    let rest: Uint8Array = new Uint8Array(0);
    for (const { name, bytes } of this.#options.files) {
      const path = join(folder, name);
      let file: FileHandle | undefined;
      try {
        file = await open(path, "wx", 0o600);
        for (let left = bytes; left > 0; ) {
          if (rest.byteLength === 0) rest = await this.#next();
          const part = rest.subarray(0, left);
          rest = rest.subarray(part.byteLength);
          await file.writeFile(part);
          left -= part.byteLength;
        }
      } catch (error) {
        throw error instanceof LockstepError ? error : fileError(error, "write", path);
      } finally {
        await file?.close();
      }
    }
    const isMore = rest.byteLength > 0 || this.#queue.length > 0;
    this.#asked = 0;
    if (isMore) throw new LockstepError("PROTOCOL", "More of a job came than was announced.");
    return folder;
  }

  async #next(): Promise<Uint8Array> {
    for (;;) {
      if (this.#error !== undefined) throw this.#error;
      const piece = this.#queue.shift();
      if (piece !== undefined) {
        this.#ask(1);
        return piece;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  #ask(pieces: number): void {
    this.#asked += pieces;
    this.#options.more(pieces);
  }
}
