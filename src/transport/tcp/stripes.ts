/** How a message is cut into pieces and laid on streams. Both ends know it, so what comes otherwise is a mistake. */
import { FRAME, type Frame, JOINED_BYTES } from "../../net/index.ts";

/** Messages up to this length are copied and sent at once; longer ones when their receiver is there. */
export const EAGER_BYTES = JOINED_BYTES;
/** What is handed on at once, when it is whole and checked. Shorter ones cost more than they save (docs/decisions/0016). */
export const PIECE_BYTES = 2 ** 20;
/** A message is worth several streams from here on. */
const STRIPED_BYTES = 2 ** 18;

/** The part of a message that goes over one of the streams, in bytes; empty where it goes over others alone. */
export function stripeOf(total: number, stream: number, streams: number) {
  const used = total >= STRIPED_BYTES ? streams : 1;
  if (stream >= used) return { from: total, to: total };
  const share = Math.ceil(total / used / 64) * 64;
  return { from: Math.min(total, stream * share), to: Math.min(total, (stream + 1) * share) };
}

/** The pieces of one stream come one after the other: each message whole before the next, and nothing in between. */
export class PieceOrder {
  readonly #stream: number;
  readonly #streams: number;
  #last: Frame | undefined;
  #to = 0;

  constructor(stream: number, streams: number) {
    this.#stream = stream;
    this.#streams = streams;
  }

  /** What is wrong with a frame that comes now. */
  check(frame: Frame): string | undefined {
    const { type, channel, sequence, total, offset, length } = frame;
    const last = this.#last;
    let from: number;
    if (last === undefined) {
      if (type !== FRAME.message) return undefined;
      ({ from, to: this.#to } = stripeOf(total, this.#stream, this.#streams));
      if (from === this.#to && total > 0) return "sent a message on the wrong stream";
    } else {
      const goesOn =
        type === FRAME.message &&
        channel === last.channel &&
        sequence === last.sequence &&
        total === last.total;
      if (!goesOn) return "broke a message off in the middle";
      from = last.offset + last.length;
    }
    if (offset !== from || length !== Math.min(PIECE_BYTES, this.#to - from)) {
      return "sent pieces that do not make a message";
    }
    this.#last = offset + length < this.#to ? frame : undefined;
    return undefined;
  }
}
