/**
 * How a message is cut into pieces that are distributed over streams. Both ends know the rule, so
 * any other order is an error.
 */
import { FRAME, type Frame, JOINED_BYTES } from "../../net/index.ts";

/**
 * Messages up to this length are copied and sent at once; longer ones when their receiver is there.
 */
export const EAGER_BYTES = JOINED_BYTES;
/**
 * A piece is passed on when it is whole and checked. Shorter pieces cost more than they save
 * (docs/decisions/0016).
 */
export const PIECE_BYTES = 2 ** 20;
/** Messages from this length on are sent over several streams. */
const STRIPED_BYTES = 2 ** 18;

/** Returns the bytes of a message that go over one stream; empty if only others carry it. */
export function stripeOf(total: number, stream: number, streams: number) {
  const used = total >= STRIPED_BYTES ? streams : 1;
  if (stream >= used) return { from: total, to: total };
  const share = Math.ceil(total / used / 64) * 64;
  return { from: Math.min(total, stream * share), to: Math.min(total, (stream + 1) * share) };
}

/** Checks the order of pieces on one stream: each message must be whole before the next begins. */
export class PieceOrder {
  readonly #stream: number;
  readonly #streams: number;
  #last: Frame | undefined;
  #to = 0;

  constructor(stream: number, streams: number) {
    this.#stream = stream;
    this.#streams = streams;
  }

  /** Returns what is wrong with a frame that comes now. */
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
      if (!goesOn) return "broke off a message in the middle";
      from = last.offset + last.length;
    }
    if (offset !== from || length !== Math.min(PIECE_BYTES, this.#to - from)) {
      return "sent pieces that do not make a message";
    }
    this.#last = offset + length < this.#to ? frame : undefined;
    return undefined;
  }
}
