/**
 * The tensors of a checkpoint in the parts that ranks hold: which there are, what their bytes are,
 * and where they are written back. A rank reads and writes only what it asks for.
 */
import { assert } from "../errors.ts";
import type { Instance, OwnRange } from "../execute/index.ts";
import type { StepProgram, TensorRef } from "../program/index.ts";
import { byteLength, bytesPerElement, type TensorType } from "../tensor/index.ts";
import { dividedTensor, readableParts, wholeBytes } from "./divided.ts";
import { PIECE_BYTES, rangesOf } from "./held-ranges.ts";
import type { PartedTensor, PlaceOf } from "./parted.ts";
import { holdingOf, ownOf } from "./state.ts";

export class StateParts {
  readonly #instance: Instance;
  readonly #plan: StepProgram;
  readonly #refs: ReadonlyMap<string, TensorRef>;
  readonly #others: PlaceOf;
  readonly #ranges = new Map<string, readonly OwnRange[]>();

  constructor(instance: Instance, plan: StepProgram, from: 0 | 1, others: PlaceOf) {
    const { parameters, slots, sides } = plan;
    const kinds = { parameters, slots, states: sides[from].states };
    this.#instance = instance;
    this.#plan = plan;
    this.#others = others;
    this.#refs = new Map(
      Object.entries(kinds).flatMap(([kind, refs]) =>
        [...refs].map(([name, ref]) => [`${kind}/${name}`, ref] as const),
      ),
    );
  }

  list(): PartedTensor[] {
    const { held, kept } = this.#plan;
    return [...this.#refs].map(([name, ref]) => {
      const whole = dividedTensor(this.#plan, nameOf(name));
      if (whole !== undefined) {
        return { name, ...whole.type, parts: readableParts(this.#plan, whole, ref) };
      }
      const parts = [...rangesOf({ held: [...held, ...kept] }, ref)].map(
        ({ from, to, held: by }) => {
          return { from: from - ref.byteOffset, to: to - ref.byteOffset, owner: by?.rank };
        },
      );
      return { name, ...ref.type, parts };
    });
  }

  /** The bytes that this rank has itself: those that it writes when a checkpoint is loaded. */
  own(): { readonly name: string; readonly from: number; readonly to: number }[] {
    const holding = holdingOf(this.#plan);
    return [...this.#refs].flatMap(([name, ref]) => {
      if (dividedTensor(this.#plan, nameOf(name)) !== undefined) {
        const size = bytesPerElement(ref.type.dtype);
        return this.#ownRanges(name).map(({ start, end }) => {
          return { name, from: start * size, to: end * size };
        });
      }
      return [...rangesOf(holding, ref)]
        .filter(({ held }) => held === undefined)
        .map(({ from, to }) => ({ name, from: from - ref.byteOffset, to: to - ref.byteOffset }));
    });
  }

  /**
   * Yields the bytes [from, to) of a tensor in pieces, until the next step. Each must be used before
   * the next is asked for.
   * @throws PEER_LOST when a rank of another node has them and has not sent them
   */
  async *read(name: string, from: number, to: number): AsyncGenerator<Uint8Array> {
    const ref = this.#ref(name);
    if (dividedTensor(this.#plan, nameOf(name)) !== undefined) {
      const of = { name: nameOf(name), ref, from, to };
      yield* wholeBytes(this.#instance, this.#plan, of, this.#others);
      return;
    }
    const within = bytesOf(ref, from, to);
    for (const { from: start, to: end, held } of rangesOf(this.#plan, within)) {
      for (let at = start; at < end; at += PIECE_BYTES) {
        const length = Math.min(PIECE_BYTES, end - at);
        if (held === undefined) {
          const place = bytesOf({ ...ref, byteOffset: 0 }, at, at + length);
          yield (await this.#instance.device.download(this.#instance.tensor(place))).bytes;
          continue;
        }
        const { memory, at: first } = this.#others(held);
        yield memory.view(first + at - held.byteOffset, length);
        // So reading a tensor takes the memory of one piece.
        memory.letGo(first + at - held.byteOffset, length);
      }
    }
  }

  /** Writes bytes of a tensor that this rank has itself. */
  write(name: string, from: number, bytes: Uint8Array): void {
    const ref = this.#ref(name);
    const at = this.#placeOf(name, ref, from);
    const place = bytesOf(ref, at, at + bytes.byteLength);
    this.#instance.device.upload(this.#instance.tensor(place), bytes);
  }

  /** Where a byte of the whole tensor lies in what this rank has of it. */
  #placeOf(name: string, { type }: TensorRef, from: number): number {
    if (dividedTensor(this.#plan, nameOf(name)) === undefined) return from;
    const size = bytesPerElement(type.dtype);
    const ranges = this.#ownRanges(name);
    const range = ranges.findLast(({ start }) => start * size <= from);
    assert(range !== undefined && from < range.end * size, `"${name}" has byte ${from} here`);
    return (range.at ?? range.start) * size + from - range.start * size;
  }

  /** What this rank has of a tensor that ranks divide, in the order of the whole. */
  #ownRanges(name: string): readonly OwnRange[] {
    const found = this.#ranges.get(name) ?? ownOf(this.#plan, nameOf(name), this.#ref(name)) ?? [];
    this.#ranges.set(name, found);
    return found;
  }

  #ref(name: string): TensorRef {
    return this.#refs.get(name) as TensorRef;
  }
}

/** The name of a tensor without the kind in front of it. */
function nameOf(name: string): string {
  return name.slice(name.indexOf("/") + 1);
}

function bytesOf({ buffer, byteOffset }: TensorRef, from: number, to: number): TensorRef {
  return { buffer, byteOffset: byteOffset + from, type: { dtype: "uint8", shape: [to - from] } };
}

/** The bytes of all tensors. */
export function stateBytes(tensors: readonly TensorType[]): number {
  return tensors.reduce((sum, type) => sum + byteLength(type), 0);
}
