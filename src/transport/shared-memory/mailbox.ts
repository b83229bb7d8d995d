/**
 * The messages of one ordered pair of ranks: a ring of slots that one side writes and the other
 * reads, in pieces.
 */
import { assert } from "../../errors.ts";
import { Inbox, type Posted } from "../inbox.ts";
import { type Control, type MailboxPlace, SLOTS } from "./control.ts";

/** A message that is being sent. */
interface Outgoing {
  readonly channel: number;
  readonly bytes: Uint8Array;
  sent: number;
  started: boolean;
  readonly done: () => void;
}

export class Outbox {
  readonly #words: Int32Array;
  readonly #place: MailboxPlace;
  readonly #queue: Outgoing[] = [];

  constructor(control: Control, from: number, to: number) {
    this.#words = control.words;
    this.#place = control.mailbox(from, to);
  }

  get idle(): boolean {
    return this.#queue.length === 0;
  }

  push(channel: number, bytes: Uint8Array, done: () => void): void {
    this.#queue.push({ channel, bytes, sent: 0, started: false, done });
  }

  /** Writes what fits. Returns whether anything was written. */
  pump(): boolean {
    const { written, read, slots } = this.#place;
    let count = Atomics.load(this.#words, written);
    let moved = false;
    for (;;) {
      const message = this.#queue[0];
      if (message === undefined || ((count - Atomics.load(this.#words, read)) | 0) >= SLOTS) break;
      const slot = slots[(count >>> 0) % SLOTS];
      assert(slot !== undefined, "a slot");
      const { channel, bytes, sent } = message;
      const length = Math.min(slot.bytes.byteLength, bytes.byteLength - sent);
      slot.header.set([channel, bytes.byteLength, sent, length]);
      slot.bytes.set(bytes.subarray(sent, sent + length));
      message.sent += length;
      count = (count + 1) | 0;
      Atomics.store(this.#words, written, count);
      moved = true;
      if (message.sent < bytes.byteLength) continue;
      this.#queue.shift();
      message.done();
    }
    return moved;
  }
}

/** The bytes of early messages that are kept here; beyond them the sender waits. */
const EARLY_BYTES = 2 ** 26;
const EARLY_COUNT = 4096;

export interface Incoming {
  readonly channel: number;
  readonly total: number;
  readonly posted: Posted | undefined;
  readonly into: Uint8Array;
}

export class MailboxReader {
  readonly inbox = new Inbox();
  readonly #words: Int32Array;
  readonly #place: MailboxPlace;
  readonly #mismatch: (what: string) => void;
  #current: Incoming | undefined;

  /** `mismatch` is called for a message that is not what was expected. */
  constructor(control: Control, from: number, to: number, mismatch: (what: string) => void) {
    this.#words = control.words;
    this.#place = control.mailbox(from, to);
    this.#mismatch = mismatch;
  }

  /** Reads what has come. Returns whether anything was read. */
  pump(): boolean {
    const { written, read, slots } = this.#place;
    let count = Atomics.load(this.#words, read);
    let moved = false;
    while (count !== Atomics.load(this.#words, written)) {
      const slot = slots[(count >>> 0) % SLOTS];
      assert(slot !== undefined, "a slot");
      const [channel = 0, total = 0, offset = 0, length = 0] = slot.header;
      this.#current ??= this.#begin(channel, total);
      const current = this.#current;
      if (current === undefined) break;
      current.into.set(slot.bytes.subarray(0, length), offset);
      count = (count + 1) | 0;
      Atomics.store(this.#words, read, count);
      moved = true;
      if (offset + length < total) continue;
      this.#current = undefined;
      if (current.posted === undefined) this.#keep(channel, current.into);
      else current.posted.done();
    }
    return moved;
  }

  /** Keeps a message, unless its receiver has come while it was arriving. */
  #keep(channel: number, message: Uint8Array): void {
    const posted = this.inbox.takePosted(channel);
    if (posted === undefined) this.inbox.keepEarly(channel, message);
    else if (posted.into.byteLength === message.byteLength) {
      posted.into.set(message);
      posted.done();
    } else {
      const expected = posted.into.byteLength;
      this.#mismatch(`sent ${message.byteLength} bytes where ${expected} were expected`);
    }
  }

  /** Returns undefined if there is no room for an early message, or the message is wrong. */
  #begin(channel: number, total: number): Incoming | undefined {
    const posted = this.inbox.takePosted(channel);
    if (posted !== undefined) {
      if (posted.into.byteLength === total) return { channel, total, posted, into: posted.into };
      this.#mismatch(`sent ${total} bytes where ${posted.into.byteLength} were expected`);
      return undefined;
    }
    const { earlyBytes, earlyCount } = this.inbox;
    const fits = earlyBytes + total <= EARLY_BYTES && earlyCount < EARLY_COUNT;
    if (!fits) return undefined;
    return { channel, total, posted: undefined, into: new Uint8Array(total) };
  }
}
