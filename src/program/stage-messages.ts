/**
 * What stages of a pipeline hand to each other over nodes, as messages that follow from the
 * timetable: a rank sends what it has made behind the turn that has made it. A rank is ready for a
 * message one turn before it needs it, so that it travels beside computation, and keeps what it has
 * received until the last turn that reads it. Pure: places and numbers only.
 */
import type { PassTask, PlannedTurn, StagePart } from "../plan/index.ts";
import { ALIGNMENT } from "./layout.ts";

/** Bytes of one value for one micro-batch, that one rank of a pipeline sends to another. */
interface Sent {
  readonly name: string;
  /** Counted from the pipeline's first. */
  readonly microBatch: number;
}

/** With the place in the pipeline from which it comes, or to which it goes. */
type Received = Sent & { readonly from: number };
type Given = Sent & { readonly to: number };
export type Moved = Received | Given;

/** What a rank does with messages around one of its turns. */
export interface AroundTurn {
  /** What it is ready to receive from now on. */
  readonly receives: readonly Received[];
  /** What has to be there before the turn. */
  readonly needs: readonly Received[];
  /** What it sends behind the turn. */
  readonly sends: readonly Given[];
  /** What it has sent out of a slot that the turn overwrites. */
  readonly frees: readonly Given[];
}

export interface StageMessageOptions {
  /** The turns of all ranks of the pipeline. */
  readonly turns: readonly (readonly PlannedTurn[])[];
  readonly pieces: readonly PassTask[];
  /** By stage: the place of its rank in the pipeline, and whether two places share a node. */
  readonly places: readonly number[];
  readonly isNear: (one: number, other: number) => boolean;
  /** The place of this rank. */
  readonly place: number;
  /** How many micro-batches a turn has at most, and how many there are. */
  readonly lanes: number;
  readonly microBatches: number;
  readonly bytesOf: (name: string) => number;
}

/** How many turns before it is needed a message may come. */
const AHEAD = 1;

interface Crossing extends Sent {
  /** The index of the turn of the receiver before which it is needed. */
  readonly needed: number;
  /** The index of the last turn of the receiver that reads it. */
  readonly last: number;
}

export class StageMessages {
  /** By turn of this rank. */
  readonly around: readonly AroundTurn[];
  /** The bytes in which this rank keeps what it has received. */
  readonly byteLength: number;
  readonly #offsets: ReadonlyMap<string, number>;

  constructor(options: StageMessageOptions) {
    const { turns, places, place, isNear } = options;
    const others = [...new Set(places)].filter((other) => !isNear(place, other));
    const own = turns[place] ?? [];
    const around = own.map(() => ({
      receives: [] as Received[],
      needs: [] as Received[],
      sends: [] as Given[],
      frees: [] as Given[],
    }));
    const kept: (Crossing & { readonly posted: number })[] = [];
    for (const from of others) {
      const crossing = crossingBetween(options, from, place).flatMap(({ sent }) => sent);
      let needed = Number.POSITIVE_INFINITY;
      // Messages come in the order in which they are sent, which may be another than that of needs.
      const ready = crossing.toReversed().map((message) => {
        needed = Math.min(needed, message.needed);
        return { ...message, needed };
      });
      for (const message of ready.toReversed()) {
        const posted = Math.max(0, message.needed - AHEAD);
        const { name, microBatch } = message;
        around[posted]?.receives.push({ name, microBatch, from });
        around[message.needed]?.needs.push({ name, microBatch, from });
        kept.push({ ...message, posted });
      }
    }
    for (const to of others) {
      for (const { turn, sent } of crossingBetween(options, place, to)) {
        const slot = own[turn]?.slot;
        const { stage, microBatch: number } = own[turn] as PlannedTurn;
        const isOther = (other: PlannedTurn) =>
          other.slot === slot && (other.stage !== stage || other.microBatch !== number);
        const next = own.findIndex((other, index) => index > turn && isOther(other));
        for (const { name, microBatch } of sent) {
          around[turn]?.sends.push({ name, microBatch, to });
          around[next]?.frees.push({ name, microBatch, to });
        }
      }
    }
    this.around = around;
    const { offsets, byteLength } = placed(kept, options.bytesOf);
    this.#offsets = offsets;
    this.byteLength = byteLength;
  }

  /** Where a value lies that another node has sent; undefined for others. */
  offset(name: string, microBatch: number): number | undefined {
    return this.#offsets.get(keyOf({ name, microBatch }));
  }
}

/** What one place sends to another, turn by turn of the one that sends. */
function crossingBetween(
  { turns, pieces, lanes, microBatches }: StageMessageOptions,
  from: number,
  to: number,
): { readonly turn: number; readonly sent: readonly Crossing[] }[] {
  const isOf = ({ stage: part }: PassTask, { stage, direction }: StagePart) =>
    part?.stage === stage && part.direction === direction;
  const receiver = turns[to] ?? [];
  /** By value: the parts of the receiver's stages that read it. */
  const readers = new Map<string, PassTask[]>();
  const stages = new Set(receiver.map(({ stage }) => stage));
  for (const piece of pieces) {
    if (piece.stage === undefined || !stages.has(piece.stage.stage)) continue;
    for (const name of piece.inputs) readers.set(name, [...(readers.get(name) ?? []), piece]);
  }
  return (turns[from] ?? []).map((turn, index) => {
    const made = pieces.filter((piece) => isOf(piece, turn)).flatMap(({ outputs }) => outputs);
    const first = turn.microBatch * lanes;
    const count = Math.min(lanes, microBatches - first);
    const sent = made.flatMap((name): Crossing[] => {
      const reading = readers.get(name) ?? [];
      const when = [...receiver.keys()].filter((at) => {
        const own = receiver[at] as PlannedTurn;
        return own.microBatch === turn.microBatch && reading.some((piece) => isOf(piece, own));
      });
      const [needed, last] = [when[0], when.at(-1)];
      if (needed === undefined || last === undefined) return [];
      return Array.from({ length: count }, (_, lane) => {
        return { name, microBatch: first + lane, needed, last };
      });
    });
    return { turn: index, sent };
  });
}

/** Places for what is received. A place is used again when its last reader is done. */
function placed(
  kept: readonly (Crossing & { readonly posted: number })[],
  bytesOf: (name: string) => number,
): { offsets: Map<string, number>; byteLength: number } {
  const offsets = new Map<string, number>();
  const slots = new Map<string, { byteOffset: number; last: number }[]>();
  let byteLength = 0;
  for (const message of kept.toSorted((a, b) => a.posted - b.posted)) {
    const { name, posted, last } = message;
    const own = slots.get(name) ?? [];
    slots.set(name, own);
    let slot = own.find((other) => other.last < posted);
    if (slot === undefined) {
      slot = { byteOffset: byteLength, last };
      own.push(slot);
      byteLength += Math.ceil(bytesOf(name) / ALIGNMENT) * ALIGNMENT;
    }
    slot.last = last;
    offsets.set(keyOf(message), slot.byteOffset);
  }
  return { offsets, byteLength };
}

function keyOf({ name, microBatch }: Sent): string {
  return `${microBatch} ${name}`;
}
