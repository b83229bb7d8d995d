/**
 * The control block of a group: a few words for each rank, each on cache lines of its own, and a
 * mailbox for each ordered pair of ranks. This file knows the layout only; other files give the
 * words their meaning.
 */
import { assert } from "../../errors.ts";
import type { Address, Memory } from "../../memory/index.ts";

const MAGIC = 0x4c4f434b;
const VERSION = 2;
const LINE = 128; // two cache lines, because processors fetch them in pairs
const HEADER_BYTES = 4096;
const REPORT_AT = 1024;
const REPORT_BYTES = HEADER_BYTES - REPORT_AT;
const RANK_BYTES = 4 * LINE;
/** The slots of a mailbox. */
export const SLOTS = 4;
/**
 * The bytes before the data of a slot: channel, length of the message, offset in it, bytes here;
 * eight bytes each.
 */
export const SLOT_HEADER_BYTES = 32;
const MAILBOX_BUDGET = 2 ** 24;

/** The places of words in the header. */
const WORD = {
  magic: 0,
  version: 1,
  size: 2,
  generation: 3,
  failure: 4,
  failureLength: 5,
} as const;

export const NOT_JOINED = 0;
export const JOINED = 1;
export const LEFT = 2;

export interface MailboxPlace {
  /** The number of slots that the sender has written, and that the receiver has read. */
  readonly written: number;
  readonly read: number;
  readonly slots: readonly { readonly header: Float64Array; readonly bytes: Uint8Array }[];
}

export function slotBytes(size: number): number {
  const pairs = Math.max(1, size * (size - 1));
  const share = MAILBOX_BUDGET / (pairs * SLOTS);
  return 2 ** Math.min(18, Math.max(12, Math.floor(Math.log2(share))));
}

export function controlBytes(size: number): number {
  return HEADER_BYTES + size * RANK_BYTES + size * size * mailboxBytes(size);
}

function mailboxBytes(size: number): number {
  return 2 * LINE + SLOTS * (SLOT_HEADER_BYTES + slotBytes(size));
}

export class Control {
  readonly memory: Memory;
  readonly size: number;
  /** The whole block as words, for Atomics. */
  readonly words: Int32Array;

  constructor(memory: Memory, size: number) {
    assert(
      memory.byteLength >= controlBytes(size),
      `a control block of ${memory.byteLength} bytes`,
    );
    this.memory = memory;
    this.size = size;
    const { buffer, byteOffset } = memory.bytes;
    this.words = new Int32Array(buffer, byteOffset, controlBytes(size) >> 2);
  }

  /** Makes the block valid; its creator calls this last. */
  publish(generation: number): void {
    this.words[WORD.version] = VERSION;
    this.words[WORD.size] = this.size;
    this.words[WORD.generation] = generation;
    Atomics.store(this.words, WORD.magic, MAGIC);
  }

  /**
   * Returns undefined while the block is being created, otherwise what is wrong with it, or the
   * empty string.
   */
  static mismatch(memory: Memory, size: number, generation: number): string | undefined {
    if (memory.byteLength < HEADER_BYTES) return undefined;
    const { buffer, byteOffset } = memory.bytes;
    const words = new Int32Array(buffer, byteOffset, 16);
    if (Atomics.load(words, WORD.magic) !== MAGIC) return undefined;
    const wanted = [VERSION, size, generation];
    const found = [words[WORD.version], words[WORD.size], words[WORD.generation]];
    const names = ["version", "size", "generation"];
    const at = wanted.findIndex((value, index) => value !== found[index]);
    return at < 0 ? "" : `its group has ${names[at]} ${found[at]}, but this one has ${wanted[at]}`;
  }

  /**
   * The words of a rank: the word that it sleeps on, whether it sleeps, how many barriers it has
   * reached.
   */
  doorbell(rank: number): number {
    return (HEADER_BYTES + rank * RANK_BYTES) >> 2;
  }

  sleeping(rank: number): number {
    return this.doorbell(rank) + 1;
  }

  barrier(rank: number): number {
    return this.doorbell(rank) + LINE / 4;
  }

  /**
   * The state: NOT_JOINED, JOINED or LEFT. The words after it are the process id, the start of the
   * process (two words) and its namespace.
   */
  state(rank: number): number {
    return this.doorbell(rank) + (2 * LINE) / 4;
  }

  /** Counts up while the rank's event loop turns. */
  beat(rank: number): number {
    return this.doorbell(rank) + (3 * LINE) / 4;
  }

  address(word: number): Address {
    return this.memory.address + BigInt(4 * word);
  }

  mailbox(from: number, to: number): MailboxPlace {
    const base =
      HEADER_BYTES + this.size * RANK_BYTES + (from * this.size + to) * mailboxBytes(this.size);
    const length = slotBytes(this.size);
    const slots = Array.from({ length: SLOTS }, (_, index) => {
      const at = base + 2 * LINE + index * (SLOT_HEADER_BYTES + length);
      const { buffer, byteOffset } = this.memory.bytes;
      return {
        header: new Float64Array(buffer, byteOffset + at, SLOT_HEADER_BYTES / 8),
        bytes: this.memory.view(at + SLOT_HEADER_BYTES, length),
      };
    });
    return { written: base >> 2, read: (base + LINE) >> 2, slots };
  }

  /** Writes the first failure. Returns false if there is one already. */
  writeFailure(report: object): boolean {
    if (Atomics.compareExchange(this.words, WORD.failure, 0, 1) !== 0) return false;
    const text = Buffer.from(JSON.stringify(report)).subarray(0, REPORT_BYTES);
    this.memory.view(REPORT_AT, REPORT_BYTES).set(text);
    this.words[WORD.failureLength] = text.byteLength;
    Atomics.store(this.words, WORD.failure, 2);
    return true;
  }

  get hasFailed(): boolean {
    return Atomics.load(this.words, WORD.failure) === 2;
  }

  readFailure(): unknown {
    const length = Math.min(REPORT_BYTES, this.words[WORD.failureLength] ?? 0);
    return JSON.parse(Buffer.from(this.memory.view(REPORT_AT, length)).toString());
  }
}
