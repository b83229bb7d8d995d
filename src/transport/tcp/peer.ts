/** What a rank holds for one other: streams both ways, messages under way, and when it was last heard. */
import type { Posted } from "../inbox.ts";
import { Channels, EAGER_BYTES } from "./channels.ts";
import {
  encodeControl,
  encodeHeader,
  FRAME,
  type Frame,
  HEADER_BYTES,
  writeHeader,
} from "./frame.ts";
import type { Link } from "./link.ts";

/** Small messages are copied into the socket's queue up to here; then they wait. */
const MAX_BACKLOG_BYTES = 2 ** 22;
/** Of a long message: a frame of its own, and how many of them wait in a stream. */
const PIECE_BYTES = 2 ** 20;
const PIECES_AHEAD = 4;
/** A message is worth several streams from here on. */
const STRIPED_BYTES = 2 ** 18;

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
  /** Dialed by us: its messages come here. */
  readonly inbound: Link[] = [];
  /** Dialed by it: our messages go there. */
  readonly outbound: Link[] = [];
  heardAt = performance.now();
  readonly #channels = new Channels();
  readonly #nextSequence = new Map<number, number>();
  /** Credits that came before their message, and messages that wait for theirs: by channel and number. */
  readonly #credits = new Map<string, number>();
  readonly #uncredited = new Map<string, Outgoing & { channel: number; sequence: number }>();
  readonly #events: PeerEvents;
  /** Streams on which it said that it leaves; each may end at its own time, and some are late. */
  readonly #byes = new Set<Link>();

  constructor(events: PeerEvents) {
    this.#events = events;
  }

  addInbound(stream: number, link: Link): void {
    this.inbound[stream] = link;
    link.handler = {
      destination: (frame) => this.#channels.place(frame),
      arrived: (frame, from, byteLength) => this.#channels.arrived(frame, from, byteLength),
      closed: (why, isTheirs) => this.#closed(why, isTheirs, link),
      frame: (frame, payload) => this.#frame(frame, payload, link),
    };
  }

  addOutbound(stream: number, link: Link): void {
    this.outbound[stream] = link;
    link.handler = {
      destination: () => "sent data on the wrong stream",
      closed: (why, isTheirs) => this.#closed(why, isTheirs, link),
      frame: (frame, payload) => this.#frame(frame, payload, link),
    };
  }

  get hasLeft(): boolean {
    return this.#byes.size > 0 && this.inbound.every((link) => this.#byes.has(link));
  }

  /** Returns true if `bytes` may be written again at once; else `done` says when. */
  send(channel: number, bytes: Uint8Array, done: () => void): boolean {
    const sequence = this.#nextSequence.get(channel) ?? 0;
    this.#nextSequence.set(channel, sequence + 1);
    if (bytes.byteLength <= EAGER_BYTES) return this.#sendSmall(channel, sequence, bytes, done);
    const message = { bytes, done, channel, sequence };
    const key = `${channel}:${sequence}`;
    const credit = this.#credits.get(key);
    if (credit === undefined) this.#uncredited.set(key, message);
    else {
      this.#credits.delete(key);
      this.#sendLarge(message, credit);
    }
    return false;
  }

  /** Returns true if the message was there already. */
  receive(
    channel: number,
    into: Uint8Array,
    done: () => void,
    arrived?: Posted["arrived"],
  ): boolean {
    const posted: Posted = {
      into,
      arrived,
      done,
      failed: (what) => this.#events.failed(String(what)),
    };
    const sequence = this.#channels.nextPost(channel);
    const early = this.#channels.post(channel, posted);
    if (early === "waiting") {
      if (into.byteLength > EAGER_BYTES) {
        const credit = { type: FRAME.credit, channel, sequence, total: into.byteLength } as const;
        this.inbound[0]?.write([encodeControl(credit)]);
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

  /** On every stream, in both directions. */
  tell(type: Frame["type"], payload?: Uint8Array): void {
    for (const link of [...this.inbound, ...this.outbound]) {
      link.write([encodeControl({ type }, payload)]);
    }
  }

  end(): void {
    for (const link of [...this.inbound, ...this.outbound]) link.end();
  }

  destroy(): void {
    for (const link of [...this.inbound, ...this.outbound]) link.destroy();
  }

  #sendSmall(channel: number, sequence: number, bytes: Uint8Array, done: () => void): boolean {
    const link = this.outbound[0] as Link;
    const frame = new Uint8Array(HEADER_BYTES + bytes.byteLength);
    writeHeader(frame, { type: FRAME.message, length: bytes.byteLength, channel, sequence });
    frame.set(bytes, HEADER_BYTES);
    if (link.backlog < MAX_BACKLOG_BYTES) {
      link.write([frame]);
      return true;
    }
    link.write([frame], done);
    return false;
  }

  #sendLarge(
    { bytes, done, channel, sequence }: Outgoing & { channel: number; sequence: number },
    expected: number,
  ): void {
    const total = bytes.byteLength;
    if (expected !== total) {
      this.#events.failed(`expects ${expected} bytes where ${total} are sent`);
      return;
    }
    const streams = total >= STRIPED_BYTES ? this.outbound.length : 1;
    const share = Math.ceil(total / streams / 64) * 64;
    let left = Math.min(streams, Math.ceil(total / share));
    for (let stream = 0; stream < streams && stream * share < total; stream++) {
      const end = Math.min(total, (stream + 1) * share);
      const link = this.outbound[stream] as Link;
      let at = stream * share;
      let onTheWay = 0;
      // Pieces are sealed one by one just before they are sent, so that they are still in the cache then.
      const next = () => {
        if (at === end) {
          if (onTheWay > 0) return;
          left -= 1;
          if (left === 0) done();
          return;
        }
        const length = Math.min(PIECE_BYTES, end - at);
        const head = { type: FRAME.message, channel, sequence, total, offset: at, length } as const;
        const piece = [encodeHeader(head), bytes.subarray(at, at + length)];
        at += length;
        onTheWay += 1;
        link.write(piece, () => {
          onTheWay -= 1;
          next();
        });
      };
      for (let ahead = 0; ahead < PIECES_AHEAD && at < end; ahead++) next();
    }
  }

  #frame(frame: Frame, payload: Uint8Array, link: Link): void {
    this.heardAt = performance.now();
    switch (frame.type) {
      case FRAME.message:
        this.#channels.placed(frame);
        if (this.#channels.full) link.pause();
        return;
      case FRAME.credit:
        return this.#credit(frame);
      case FRAME.ping:
        return;
      case FRAME.bye:
        this.#byes.add(link);
        if (this.hasLeft) this.#events.left();
        return;
      case FRAME.abort:
        return this.#reported(payload);
      default:
        this.#events.failed(`sent a frame of type ${frame.type} out of turn`);
    }
  }

  #credit({ channel, sequence, total }: Frame): void {
    const key = `${channel}:${sequence}`;
    const message = this.#uncredited.get(key);
    if (message === undefined) {
      if (this.#credits.size > 2 ** 16) this.#events.failed("asks for more than it can get");
      this.#credits.set(key, total);
      return;
    }
    this.#uncredited.delete(key);
    this.#sendLarge(message, total);
  }

  #reported(payload: Uint8Array): void {
    try {
      this.#events.reported(JSON.parse(Buffer.from(payload).toString()));
    } catch {
      this.#events.failed("sent a report that cannot be read");
    }
  }

  #closed(why: string, isTheirs: boolean, link: Link): void {
    if (isTheirs) this.#events.failed(why);
    else if (!this.#byes.has(link)) this.#events.lost(why);
  }
}
