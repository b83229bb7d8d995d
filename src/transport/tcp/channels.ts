/**
 * What one peer sends us, by channel and number: matched with receives whatever stream it comes on.
 * No socket here.
 */

import type { Frame } from "../../net/index.ts";
import type { Posted } from "../inbox.ts";
import { EAGER_BYTES } from "./stripes.ts";

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
  /** Messages that were sent or offered so far: they come in order. */
  known: number;
  /** Offered and without receiver: their lengths. */
  readonly offered: Map<number, number>;
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
    const offered = channel.offered.get(sequence);
    if (offered !== undefined) {
      channel.offered.delete(sequence);
      this.#earlyCount -= 1;
      if (offered !== posted.into.byteLength) posted.failed(otherLength(offered, posted));
    }
    channel.posted.set(sequence, posted);
    return "waiting";
  }

  /** A message is ready to be sent when its receiver is there. Returns what is wrong with that. */
  offer({ channel: number, sequence, total }: Frame): string | undefined {
    const channel = this.#channel(number);
    const wrong = this.#next(channel, number, sequence);
    if (wrong !== undefined) return wrong;
    if (total <= EAGER_BYTES) return `offered ${total} bytes instead of sending them`;
    const posted = channel.posted.get(sequence);
    if (posted !== undefined) {
      return posted.into.byteLength === total ? undefined : otherLength(total, posted);
    }
    if (sequence < channel.posts) return undefined; // came on another stream in the meantime
    channel.offered.set(sequence, total);
    this.#earlyCount += 1;
    return undefined;
  }

  /**
   * Where a piece goes, or why it cannot be. Pieces of a stream come in the order of `stripes.ts`.
   */
  place({ channel: number, sequence, total, offset, length }: Frame): Uint8Array | string {
    const channel = this.#channel(number);
    const arriving =
      channel.arriving.get(sequence) ?? this.#arrive(channel, number, sequence, total);
    if (typeof arriving === "string") return arriving;
    if (total !== arriving.into.byteLength || length > arriving.left) {
      return "sent pieces that do not make a message";
    }
    return arriving.into.subarray(offset, offset + length);
  }

  #arrive(channel: Channel, number: number, sequence: number, total: number): Arriving | string {
    if (total <= EAGER_BYTES) {
      const wrong = this.#next(channel, number, sequence);
      if (wrong !== undefined) return wrong;
    }
    const posted = channel.posted.get(sequence);
    if (posted !== undefined && posted.into.byteLength !== total) return otherLength(total, posted);
    if (posted === undefined && sequence < channel.posts) return outOfTurn(number, sequence);
    if (posted === undefined && total > EAGER_BYTES) {
      return `sent ${total} bytes that nobody had asked for`;
    }
    channel.posted.delete(sequence);
    const arriving = { into: posted?.into ?? new Uint8Array(total), posted, left: total };
    channel.arriving.set(sequence, arriving);
    if (posted === undefined) {
      this.#earlyBytes += total;
      this.#earlyCount += 1;
    }
    return arriving;
  }

  /** Messages of a channel are sent or offered one after the other. */
  #next(channel: Channel, number: number, sequence: number): string | undefined {
    if (sequence !== channel.known) return outOfTurn(number, sequence);
    if (this.#earlyCount > 4 * EARLY_COUNT) {
      return "sent too many messages that nobody had asked for";
    }
    channel.known += 1;
    return undefined;
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
      late.failed(otherLength(arriving.into.byteLength, late));
      return;
    }
    late.into.set(arriving.into);
    late.done();
  }

  #channel(number: number): Channel {
    let channel = this.#channels.get(number);
    if (channel === undefined) {
      const [posted, arriving, early, offered] = [new Map(), new Map(), new Map(), new Map()];
      channel = { posts: 0, known: 0, offered, posted, arriving, early };
      this.#channels.set(number, channel);
    }
    return channel;
  }
}

function otherLength(total: number, { into }: Posted): string {
  return `sent ${total} bytes where ${into.byteLength} were expected`;
}

function outOfTurn(channel: number, sequence: number): string {
  return `sent message ${sequence} of channel ${channel} out of turn`;
}
