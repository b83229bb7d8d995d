/** Keeps a bounded number of files open for reading; the least recently used is closed first. */
import { openRange, type RangeReader } from "./range.ts";

/** The most open files: far below any system's limit, even with several processes. */
const MAX_OPEN = 64;

interface Slot {
  readonly reader: Promise<RangeReader>;
  /** The number of reads in progress; the file is closed only when there are none. */
  users: number;
}

export class FilePool {
  readonly #slots = new Map<string, Slot>();
  readonly #maxOpen: number;

  constructor(maxOpen = MAX_OPEN) {
    this.#maxOpen = maxOpen;
  }

  /**
   * Fills `into` from `offset` on. Throws FILE_NOT_FOUND, FILE_CORRUPT (the file is shorter) or
   * IO_FAILED.
   */
  async read(path: string, offset: number, into: Uint8Array): Promise<void> {
    const slot = this.#take(path);
    try {
      const reader = await slot.reader.catch((error: unknown) => {
        if (this.#slots.get(path) === slot) this.#slots.delete(path);
        throw error;
      });
      await reader.read(offset, into);
    } finally {
      slot.users--;
      this.#shrink();
    }
  }

  /**
   * Closes all files without waiting for reads: those in progress fail or finish. A later read
   * opens its file again.
   */
  async close(): Promise<void> {
    const slots = [...this.#slots.values()];
    this.#slots.clear();
    await Promise.allSettled(slots.map(async ({ reader }) => (await reader).close()));
  }

  #take(path: string): Slot {
    const slot = this.#slots.get(path) ?? { reader: openRange(path), users: 0 };
    slot.users++;
    this.#slots.delete(path); // and insert it again at the end: the map's order is the order of use
    this.#slots.set(path, slot);
    return slot;
  }

  #shrink(): void {
    for (const [path, slot] of this.#slots) {
      if (this.#slots.size <= this.#maxOpen) return;
      if (slot.users > 0) continue;
      this.#slots.delete(path);
      closeQuietly(slot);
    }
  }
}

/** Closes a file that was only read; an error of closing it says nothing. */
function closeQuietly(slot: Slot): void {
  slot.reader.then((reader) => reader.close()).catch(() => undefined);
}
