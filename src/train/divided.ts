/** Tensors of which the ranks that divide a model hold parts, as wholes. */
import type { Instance } from "../execute/index.ts";
import {
  type DividedTensor,
  type Held,
  type PartRange,
  partRanges,
  type StepProgram,
  type TensorRef,
} from "../program/index.ts";
import { byteLength, bytesPerElement, type Tensor } from "../tensor/index.ts";
import { PIECE_BYTES, rangesOf } from "./held-ranges.ts";
import type { PartedTensor, PlaceOf } from "./parted.ts";

/** Bytes [from, to) of a whole tensor, which lie at `at` in the part of a place in the model. */
interface ByteRange {
  readonly from: number;
  readonly to: number;
  readonly at: number;
  readonly place: number;
}

const known = new WeakMap<DividedTensor, readonly ByteRange[]>();

/** What the places hold of a tensor, in the order of the whole. */
function byteRangesOf(tensor: DividedTensor, places: number): readonly ByteRange[] {
  const found = known.get(tensor);
  if (found !== undefined) return found;
  const size = bytesPerElement(tensor.type.dtype);
  const byStart = new Map<number, ByteRange>();
  for (let place = 0; place < places; place++) {
    for (const { start, end, at } of partRanges(tensor, place)) {
      const range = { from: start * size, to: end * size, at: at * size, place };
      // Several places may hold the same part.
      if (!byStart.has(range.from)) byStart.set(range.from, range);
    }
  }
  const ranges = [...byStart.values()].sort((a, b) => a.from - b.from);
  known.set(tensor, ranges);
  return ranges;
}

/** The tensor of which a rank has a part; undefined if it has all of it. */
export function dividedTensor({ divided }: StepProgram, name: string): DividedTensor | undefined {
  return divided?.tensors.get(name);
}

/** What a rank holds of a tensor: ranges of the whole, and where they lie in its part. */
export function ownRanges({ divided }: StepProgram, tensor: DividedTensor): PartRange[] {
  return partRanges(tensor, divided?.place ?? 0);
}

/** The places in the model whose parts are other ones; one where each rank has all of the model. */
export function placesOf({ divided }: StepProgram): readonly number[] {
  if (divided === undefined || divided.tensors.size === 0) return [divided?.place ?? 0];
  return [...divided.ranks.keys()];
}

/**
 * What a rank has of divided tensors that its peers do not hold for it: where parts are on several
 * nodes, the rank of the same number at another place is asked for it.
 * @param from the set of states that was committed last
 */
export function ownExtents(plan: StepProgram, from: 0 | 1): Held[] {
  const { divided, parameters, slots, sides } = plan;
  if (divided === undefined || divided.isInPlace) return [];
  const rank = divided.ranks[divided.place]?.[divided.peer] as number;
  const refs = [...parameters, ...slots, ...sides[from].states];
  return refs
    .filter(([name]) => divided.tensors.has(name))
    .flatMap(([, ref]) => [...rangesOf(plan, ref)].map((range) => ({ range, ref })))
    .filter(({ range }) => range.held === undefined)
    .map(({ range, ref }) => {
      return {
        buffer: ref.buffer,
        rank,
        byteOffset: range.from,
        byteLength: range.to - range.from,
      };
    });
}

/** The rank that has at a place in the model what another has at this one. */
export function rankAt(
  { divided }: StepProgram,
  { rank }: Pick<Held, "rank">,
  place: number,
): number {
  const own = divided?.ranks[divided.place];
  return divided?.ranks[place]?.[own?.indexOf(rank) ?? 0] ?? rank;
}

/**
 * A tensor that ranks divide, in the parts that one rank can read. Within a node that is all of it;
 * where parts are sharded over nodes, neighbours have the same shard of each part; where parts are on
 * several nodes, rank 0 collects them.
 */
export function readableParts(
  plan: StepProgram,
  tensor: DividedTensor,
  ref: TensorRef,
): PartedTensor["parts"] {
  const { divided, held, kept, isHeldInPlace } = plan;
  const whole = { from: 0, to: byteLength(tensor.type), owner: undefined };
  if (isHeldInPlace || divided === undefined || !divided.isInPlace) return [whole];
  const parts: { from: number; to: number; owner: number | undefined }[] = [];
  for (const { from, to, at } of byteRangesOf(tensor, divided.ranks.length)) {
    const local = bytesRef(ref, at, at + to - from);
    for (const range of rangesOf({ held: [...held, ...kept] }, local)) {
      const owner = range.held && rankAt(plan, range.held, 0);
      const end = from + range.to - local.byteOffset;
      const last = parts.at(-1);
      if (last !== undefined && last.owner === owner) last.to = end;
      else parts.push({ from: from + range.from - local.byteOffset, to: end, owner });
    }
  }
  return parts;
}

function bytesRef({ buffer, byteOffset }: TensorRef, from: number, to: number): TensorRef {
  return { buffer, byteOffset: byteOffset + from, type: { dtype: "uint8", shape: [to - from] } };
}

/**
 * Yields the bytes [from, to) of a whole tensor, out of the memory of the ranks that have parts of
 * it. They must not run a step meanwhile. Each piece must be used before the next is asked for.
 */
export function* wholeBytes(
  instance: Instance,
  plan: StepProgram,
  { name, ref, from, to }: { name: string; ref: TensorRef; from: number; to: number },
  others: PlaceOf,
): Generator<Uint8Array> {
  const { divided } = plan;
  const tensor = dividedTensor(plan, name);
  if (divided === undefined || tensor === undefined) return;
  const ranges = byteRangesOf(tensor, divided.ranks.length);
  const extents = divided.isInPlace ? [] : ownExtents(plan, fromOf(plan, ref));
  /** The bytes of a part, by the place that has it. */
  const copy = (place: number, first: number, last: number, into: Uint8Array) => {
    const local = bytesRef(ref, first, last);
    for (const range of rangesOf(plan, local)) {
      const length = range.to - range.from;
      const sent = place === divided.place ? undefined : extentOf(extents, ref.buffer, range.from);
      const part = range.held ?? sent;
      const found = part === undefined ? ofPlace(place) : others(part, place);
      const start = found.at + range.from - (part?.byteOffset ?? 0);
      into.set(found.memory.view(start, length), range.from - local.byteOffset);
    }
  };
  /** What this rank has of its part, another rank of the node has of another part. */
  const ofPlace = (place: number) => {
    const rank = place === divided.place ? undefined : divided.ranks[place]?.[divided.peer];
    return { memory: instance.host(ref.buffer, rank).memory, at: 0 };
  };
  let next = ranges.findIndex((range) => range.to > from);
  for (let at = from; at < to; ) {
    const piece = new Uint8Array(Math.min(PIECE_BYTES, to - at));
    const end = at + piece.byteLength;
    for (let filled = at; filled < end; ) {
      const range = ranges[next] as ByteRange;
      const last = Math.min(range.to, end);
      const first = range.at + filled - range.from;
      copy(range.place, first, first + last - filled, piece.subarray(filled - at, last - at));
      filled = last;
      if (last === range.to) next += 1;
    }
    yield piece;
    at = end;
  }
}

function extentOf(extents: readonly Held[], buffer: string, at: number): Held | undefined {
  return extents.find(
    (part) =>
      part.buffer === buffer && part.byteOffset <= at && at < part.byteOffset + part.byteLength,
  );
}

/** The set of states in which a tensor lies, if it is a state. */
function fromOf({ sides }: StepProgram, { buffer }: TensorRef): 0 | 1 {
  const isSecond = [...sides[1].states.values()].some((state) => state.buffer === buffer);
  return isSecond ? 1 : 0;
}

/** A whole tensor, which is read when it is asked for. */
export function wholeTensor(
  instance: Instance,
  plan: StepProgram,
  { name, ref, others }: { name: string; ref: TensorRef; others: PlaceOf },
): Tensor | undefined {
  const tensor = dividedTensor(plan, name);
  if (tensor === undefined) return undefined;
  const { type } = tensor;
  const length = byteLength(type);
  const pieces = () => wholeBytes(instance, plan, { name, ref, from: 0, to: length }, others);
  return {
    ...type,
    pieces,
    get bytes() {
      const bytes = new Uint8Array(length);
      let at = 0;
      for (const piece of pieces()) {
        bytes.set(piece, at);
        at += piece.byteLength;
      }
      return bytes;
    },
  };
}
