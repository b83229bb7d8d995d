/** What one peer sends us, by channel and number: matched with receives whatever stream it comes on. No socket here. */
import type { Posted } from "../inbox.ts";
import type { Frame } from "./frame.ts";

/** Messages up to this length are sent at once; longer ones when their receiver is there. */
export const EAGER_BYTES = 2 ** 16;
/** What may come before its receiver; then the stream is read no further. */
const EARLY_BYTES = 2 ** 24;
const EARLY_COUNT = 4096;

interface Arriving {
  readonly into: Uint8Array;
  readonly posted: Posted | undefined;
  left: number;
}

interface Channel {
  /** Receives so far. */
  posts: number;
  readonly posted: Map<number, Posted>;
  readonly arriving: Map<number, Arriving>;
  /** Complete, without receiver. */
  readonly early: Map<number, Uint8Array>;
}

export class Channels {
  readonly #channels = new Map<number, Channel>();
  #earlyBytes = 0;
  #earlyCount = 0;

  /** Whether no more should be read until something was taken. */
  get full(): boolean {
    return this.#earlyBytes > EARLY_BYTES || this.#earlyCount > EARLY_COUNT;
  }

  /** The number of the next receive of a channel. */
  nextPost(number: number): number {
    return this.#channel(number).posts;
  }

  /** The next receive of a channel. Returns its message, if that is complete, or "waiting". */
  post(number: number, posted: Posted): Uint8Array | "waiting" {
    const channel = this.#channel(number);
    const sequence = channel.posts;
    channel.posts += 1;
    const early = channel.early.get(sequence);
    if (early !== undefined) {
      channel.early.delete(sequence);
      this.#earlyBytes -= early.byteLength;
      this.#earlyCount -= 1;
      return early;
    }
    channel.posted.set(sequence, posted);
    return "waiting";
  }

  /** Where a piece goes, or why it cannot be. */
  place({ channel: number, sequence, total, offset, length }: Frame): Uint8Array | string {
    const channel = this.#channel(number);
    let arriving = channel.arriving.get(sequence);
    if (arriving === undefined) {
      const posted = channel.posted.get(sequence);
      if (posted !== undefined && posted.into.byteLength !== total) {
        return `sent ${total} bytes where ${posted.into.byteLength} were expected`;
      }
      const known = sequence < channel.posts || sequence < channel.posts + EARLY_COUNT;
      const repeated = posted === undefined && sequence < channel.posts;
      if (!known || repeated || channel.early.has(sequence)) {
        return `sent message ${sequence} of channel ${number} out of turn`;
      }
      if (posted === undefined && total > EAGER_BYTES) {
        return `sent ${total} bytes that nobody had asked for`;
      }
      if (posted === undefined && this.#earlyCount > 4 * EARLY_COUNT) {
        return "sent too many messages that nobody had asked for";
      }
      channel.posted.delete(sequence);
      arriving = { into: posted?.into ?? new Uint8Array(total), posted, left: total };
      channel.arriving.set(sequence, arriving);
      if (posted === undefined) {
        this.#earlyBytes += total;
        this.#earlyCount += 1;
      }
    }
    if (total !== arriving.into.byteLength || length > arriving.left) {
      return "sent pieces that do not make a message";
    }
    return arriving.into.subarray(offset, offset + length);
  }

  /** A part of a piece is there. */
  arrived({ channel, sequence, offset }: Frame, from: number, byteLength: number): void {
    const arriving = this.#channels.get(channel)?.arriving.get(sequence);
    arriving?.posted?.arrived?.(offset + from, byteLength);
  }

  /** A piece is there. */
  placed({ channel: number, sequence, length }: Frame): void {
    const channel = this.#channel(number);
    const arriving = channel.arriving.get(sequence);
    if (arriving === undefined) return;
    arriving.left -= length;
    if (arriving.left > 0) return;
    channel.arriving.delete(sequence);
    if (arriving.posted !== undefined) {
      arriving.posted.done();
      return;
    }
    const late = channel.posted.get(sequence); // came while the message was arriving
    if (late === undefined) {
      channel.early.set(sequence, arriving.into);
      return;
    }
    channel.posted.delete(sequence);
    this.#earlyBytes -= arriving.into.byteLength;
    this.#earlyCount -= 1;
    if (late.into.byteLength !== arriving.into.byteLength) {
      late.failed(
        `sent ${arriving.into.byteLength} bytes where ${late.into.byteLength} were expected`,
      );
      return;
    }
    late.into.set(arriving.into);
    late.done();
  }

  #channel(number: number): Channel {
    let channel = this.#channels.get(number);
    if (channel === undefined) {
      channel = { posts: 0, posted: new Map(), arriving: new Map(), early: new Map() };
      this.#channels.set(number, channel);
    }
    return channel;
  }
}
