/**
 * What a rank keeps for each peer: streams in both directions, messages in progress, and when it
 * was last heard.
 */

import type { Link, LinkHandler } from "../../net/index.ts";
import { FRAME, type Frame } from "../../net/index.ts";
import type { Posted } from "../inbox.ts";
import { Channels } from "./channels.ts";
import { EAGER_BYTES, PIECE_BYTES, PieceOrder, stripeOf } from "./stripes.ts";

/** Small messages are copied into the socket's queue up to this many bytes; then they wait. */
const MAX_BACKLOG_BYTES = 2 ** 22;
/** The time in which the other streams of a peer may say why one of them was closed. */
const OTHERS_MS = 250;
/** The number of messages that may be asked for before they are sent. */
const MAX_CREDITS = 2 ** 16;

interface Outgoing {
  readonly bytes: Uint8Array;
  readonly done: () => void;
}

export interface PeerEvents {
  readonly failed: (what: string) => void;
  readonly lost: (why: string) => void;
  readonly left: () => void;
  readonly reported: (report: unknown) => void;
}

export class Peer {
  /** Streams that we dialed; the peer's messages come on them. */
  readonly inbound: Link[] = [];
  /** Streams that the peer dialed; our messages go on them. */
  readonly outbound: Link[] = [];
  /** When each stream was last heard. */
  readonly #heardAt = new Map<Link, number>();
  readonly #channels = new Channels();
  readonly #nextSequence = new Map<number, number>();
  /**
   * Credits that came before their message, and messages that wait for their credit, by channel and
   * number.
   */
  readonly #credits = new Map<string, number>();
  readonly #uncredited = new Map<string, Outgoing & { channel: number; sequence: number }>();
  readonly #events: PeerEvents;
  /**
   * The streams on which the peer has said goodbye. Each may end at its own time, and some end
   * late.
   */
  readonly #byes = new Set<Link>();
  #byeAt = Number.POSITIVE_INFINITY;
  readonly #streams: number;

  constructor(events: PeerEvents, streams: number) {
    this.#events = events;
    this.#streams = streams;
  }

  addInbound(stream: number, link: Link): void {
    this.inbound[stream] = link;
    const order = new PieceOrder(stream, this.#streams);
    this.#attach(link, {
      destination: (frame) => order.check(frame) ?? this.#channels.place(frame),
      check: (frame) => (frame.type === FRAME.message ? undefined : order.check(frame)),
      hears: stream === 0 ? [FRAME.message, FRAME.offer] : [FRAME.message],
    });
  }

  addOutbound(stream: number, link: Link): void {
    this.outbound[stream] = link;
    this.#attach(link, {
      destination: () => "sent data on the wrong stream",
      check: () => undefined,
      hears: stream === 0 ? [FRAME.credit] : [],
    });
  }

  #attach(
    link: Link,
    {
      destination,
      check,
      hears,
    }: Pick<LinkHandler, "destination"> & {
      readonly check: (frame: Frame) => string | undefined;
      readonly hears: readonly number[];
    },
  ): void {
    const heard: ReadonlySet<number> = new Set([FRAME.ping, FRAME.bye, FRAME.abort, ...hears]);
    this.#heardAt.set(link, performance.now());
    link.handler = {
      destination,
      closed: (why, isBroken) => {
        if (isBroken) this.#events.failed(why);
        else this.#closed(why, link);
      },
      frame: (frame, payload) => {
        this.#heardAt.set(link, performance.now());
        const stray = !heard.has(frame.type) || this.#byes.has(link);
        const wrong = stray ? `sent a frame of type ${frame.type} out of turn` : check(frame);
        if (wrong === undefined) this.#frame(frame, payload, link);
        else this.#events.failed(wrong);
      },
    };
  }

  /** Records that all streams have just been heard. */
  heard(): void {
    const now = performance.now();
    for (const link of this.#heardAt.keys()) this.#heardAt.set(link, now);
  }

  /** Fails if a stream that is being read was silent for this long. */
  checkSilence(silenceMs: number): void {
    if (this.hasLeft) return;
    const now = performance.now();
    if (now - this.#byeAt > silenceMs) {
      return this.#events.failed("says that it leaves on some of its streams only");
    }
    for (const [link, at] of this.#heardAt) {
      if (link.isPaused) this.#heardAt.set(link, now);
      else if (this.#byes.has(link) || now - at < silenceMs) continue;
      else if (link.isInFrame) return this.#events.failed("broke off in the middle of a frame");
      else return this.#events.lost(`it was silent for ${Math.round(silenceMs)} ms`);
    }
  }

  get hasLeft(): boolean {
    return this.#byes.size > 0 && this.inbound.every((link) => this.#byes.has(link));
  }

  /**
   * Returns true if `bytes` may be overwritten at once; otherwise `done` is called when they may
   * be.
   */
  send(channel: number, bytes: Uint8Array, done: () => void): boolean {
    const sequence = this.#nextSequence.get(channel) ?? 0;
    this.#nextSequence.set(channel, sequence + 1);
    if (bytes.byteLength <= EAGER_BYTES) return this.#sendSmall(channel, sequence, bytes, done);
    const message = { bytes, done, channel, sequence };
    const key = `${channel}:${sequence}`;
    this.outbound[0]?.write({ type: FRAME.offer, channel, sequence, total: bytes.byteLength });
    const credit = this.#credits.get(key);
    if (credit === undefined) this.#uncredited.set(key, message);
    else {
      this.#credits.delete(key);
      this.#sendLarge(message, credit);
    }
    return false;
  }

  /** Returns true if the message had come already; otherwise `done` is called when it comes. */
  receive(channel: number, into: Uint8Array, done: () => void): boolean {
    const posted: Posted = {
      into,
      done,
      failed: (what) => this.#events.failed(String(what)),
    };
    const sequence = this.#channels.nextPost(channel);
    const early = this.#channels.post(channel, posted);
    if (early === "waiting") {
      if (into.byteLength > EAGER_BYTES) {
        const total = into.byteLength;
        this.inbound[0]?.write({ type: FRAME.credit, channel, sequence, total });
      }
      return false;
    }
    if (!this.#channels.full) for (const link of this.inbound) link.resume();
    if (early.byteLength === into.byteLength) {
      into.set(early);
      return true;
    }
    this.#events.failed(`sent ${early.byteLength} bytes where ${into.byteLength} were expected`);
    return false;
  }

  /** Sends a frame on every stream in both directions. */
  tell(type: Frame["type"], payload?: Uint8Array): void {
    for (const link of [...this.inbound, ...this.outbound]) {
      link.write({ type }, payload);
    }
  }

  /** Ends all streams; resolves when they are closed. */
  async end(): Promise<void> {
    await Promise.all([...this.inbound, ...this.outbound].map((link) => link.end()));
  }

  destroy(): void {
    for (const link of [...this.inbound, ...this.outbound]) link.destroy();
  }

  #sendSmall(channel: number, sequence: number, bytes: Uint8Array, done: () => void): boolean {
    if (this.#credits.has(`${channel}:${sequence}`)) {
      this.#events.failed(`expects more than the ${bytes.byteLength} bytes that are sent`);
      return false;
    }
    const link = this.outbound[0] as Link;
    const atOnce = link.backlog < MAX_BACKLOG_BYTES;
    const head = { type: FRAME.message, channel, sequence, total: bytes.byteLength } as const;
    // Bytes of up to EAGER_BYTES are copied, as all such payloads are.
    link.write(head, bytes, atOnce ? undefined : done);
    return atOnce;
  }

  #sendLarge(
    { bytes, done, channel, sequence }: Outgoing & { channel: number; sequence: number },
    expected: number,
  ): void {
    const total = bytes.byteLength;
    if (expected !== total) {
      this.#events.failed(`expects ${expected} bytes, but ${total} are sent`);
      return;
    }
    let left = 0;
    const written = () => {
      left -= 1;
      if (left === 0) done();
    };
    const pieces: [Link, number, number][] = [];
    for (const [stream, link] of this.outbound.entries()) {
      const { from, to } = stripeOf(total, stream, this.outbound.length);
      for (let at = from; at < to; at += PIECE_BYTES) {
        pieces.push([link, at, Math.min(to, at + PIECE_BYTES)]);
      }
    }
    left = pieces.length;
    for (const [link, offset, end] of pieces) {
      const head = { type: FRAME.message, channel, sequence, total, offset } as const;
      link.write(head, bytes.subarray(offset, end), written);
    }
  }

  #frame(frame: Frame, payload: Uint8Array, link: Link): void {
    switch (frame.type) {
      case FRAME.message:
        this.#channels.placed(frame);
        if (this.#channels.full) link.pause();
        return;
      case FRAME.credit:
        return this.#credit(frame);
      case FRAME.offer: {
        const wrong = this.#channels.offer(frame);
        if (wrong !== undefined) this.#events.failed(wrong);
        return;
      }
      case FRAME.ping:
        return;
      case FRAME.bye:
        this.#byes.add(link);
        this.#byeAt = Math.min(this.#byeAt, performance.now());
        if (this.hasLeft) this.#events.left();
        return;
      case FRAME.abort:
        return this.#reported(payload);
      default: // such a frame was refused before
    }
  }

  #credit({ channel, sequence, total }: Frame): void {
    const key = `${channel}:${sequence}`;
    const message = this.#uncredited.get(key);
    if (message !== undefined) {
      this.#uncredited.delete(key);
      return this.#sendLarge(message, total);
    }
    const isPast = sequence < (this.#nextSequence.get(channel) ?? 0);
    if (isPast || this.#credits.has(key)) return this.#events.failed("asks for a message twice");
    if (total <= EAGER_BYTES || this.#credits.size >= MAX_CREDITS) {
      return this.#events.failed("asks for a message that it gets without asking");
    }
    this.#credits.set(key, total);
  }

  #reported(payload: Uint8Array): void {
    try {
      this.#events.reported(JSON.parse(Buffer.from(payload).toString()));
    } catch {
      this.#events.failed("sent a report that cannot be read");
    }
  }

  /**
   * A peer that fails says why on all of its streams and closes them. A stream can fail here before
   * that was read, so the others are heard first.
   */
  #closed(why: string, link: Link): void {
    if (this.#byes.has(link)) return;
    const lost = () => this.#events.lost(why);
    const isLast = [...this.inbound, ...this.outbound].every(({ isClosed }) => isClosed);
    if (isLast) lost();
    else setTimeout(lost, OTHERS_MS).unref();
  }
}
