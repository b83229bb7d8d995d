/**
 * What one peer sends us, by channel and number. Messages are matched with receives whatever stream
 * they come on. This file knows no socket.
 */

import type { Frame } from "../../net/index.ts";
import type { Posted } from "../inbox.ts";
import { EAGER_BYTES } from "./stripes.ts";

/** The bytes that may come before their receiver. Beyond them the stream is not read. */
const EARLY_BYTES = 2 ** 24;
const EARLY_COUNT = 4096;

interface Arriving {
  readonly into: Uint8Array;
  readonly posted: Posted | undefined;
  left: number;
}

interface Channel {
  /** The number of receives so far. */
  posts: number;
  /** The number of messages that were sent or offered so far; they come in order. */
  known: number;
  /** The lengths of messages that were offered and have no receiver yet. */
  readonly offered: Map<number, number>;
  readonly posted: Map<number, Posted>;
  readonly arriving: Map<number, Arriving>;
  /** Complete messages that have no receiver yet. */
  readonly early: Map<number, Uint8Array>;
}

export class Channels {
  readonly #channels = new Map<number, Channel>();
  #earlyBytes = 0;
  #earlyCount = 0;

  /** Whether reading must pause until a message is taken. */
  get full(): boolean {
    return this.#earlyBytes > EARLY_BYTES || this.#earlyCount > EARLY_COUNT;
  }

  /** Returns the number of the next receive of a channel. */
  nextPost(number: number): number {
    return this.#channel(number).posts;
  }

  /**
   * Adds the next receive of a channel. Returns its message if that is complete, else "waiting".
   */
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

  /**
   * Records that a message is ready to be sent when its receiver is there. Returns what is wrong
   * with that.
   */
  offer({ channel: number, sequence, total }: Frame): string | undefined {
    const channel = this.#channel(number);
    const wrong = this.#next(channel, number, sequence);
    if (wrong !== undefined) return wrong;
    if (total <= EAGER_BYTES) return `offered ${total} bytes instead of sending them`;
    const posted = channel.posted.get(sequence);
    if (posted !== undefined) {
      return posted.into.byteLength === total ? undefined : otherLength(total, posted);
    }
    if (sequence < channel.posts) return undefined; // the message came on another stream in the meantime
    channel.offered.set(sequence, total);
    this.#earlyCount += 1;
    return undefined;
  }

  /**
   * Returns the destination of a piece, or why there is none. Pieces of a stream come in the order
   * of `stripes.ts`.
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
      return `sent ${total} bytes that were not expected`;
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

  /** Checks that messages of a channel are sent or offered one after the other. */
  #next(channel: Channel, number: number, sequence: number): string | undefined {
    if (sequence !== channel.known) return outOfTurn(number, sequence);
    if (this.#earlyCount > 4 * EARLY_COUNT) {
      return "sent too many messages that were not expected";
    }
    channel.known += 1;
    return undefined;
  }

  /** Records that a piece has arrived. */
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
    const late = channel.posted.get(sequence); // the receive came while the message was arriving
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
