/** Sums of the bytes of the state that a rank holds, by who else should hold the same. */
import { crc32 } from "node:zlib";
import type { Instance } from "../execute/index.ts";
import type { StepProgram, TensorRef } from "../program/index.ts";
import { rangesOf } from "./held-ranges.ts";
import type { Part } from "./replicas.ts";

/** Bytes that are summed, or sent, at once. */
const PIECE_BYTES = 2 ** 22;

/** A state, where it lies. */
export interface Guarded {
  readonly instance: Instance;
  readonly planned: { readonly plan: StepProgram };
  readonly from: 0 | 1;
  /** Committed steps. */
  readonly steps: number;
}

export type Sum = Readonly<Record<Part, number>>;

export async function sumOf(at: Guarded, parts: readonly Part[]): Promise<Sum> {
  const sums = { whole: 0, own: 0 };
  const pieces = piecesOf(at);
  for (const part of parts) {
    for (const piece of pieces[part]) {
      const { bytes } = await at.instance.device.download(at.instance.tensor(piece));
      sums[part] = crc32(bytes, sums[part]);
    }
  }
  return sums;
}

type Pieces = Readonly<Record<Part, readonly TensorRef[]>>;

/** The pieces of a program's two states. */
const known = new WeakMap<StepProgram, [Pieces?, Pieces?]>();

/** The bytes of the state that this rank holds. */
export function piecesOf({ planned: { plan }, from }: Guarded): Pieces {
  const found = known.get(plan) ?? [];
  known.set(plan, found);
  const { parameters, slots, sides, held, kept, divided } = plan;
  const all = [parameters, slots, sides[from].states].flatMap((of) => [...of]);
  // Of what ranks divide, those with the same place in the model hold the same.
  const isPart = (name: string) => divided?.tensors.has(name) === true;
  const refs = all.flatMap(([name, ref]) => (isPart(name) ? [] : [ref]));
  const parts = all.flatMap(([name, ref]) => (isPart(name) ? [ref] : []));
  found[from] ??= {
    // Nobody else holds what this rank keeps, so it is cut out like what others hold.
    whole: refs.flatMap((ref) => piecesIn({ held: [...held, ...kept] }, ref)),
    own: [
      ...refs.flatMap((ref) =>
        [...rangesOf({ held: kept }, ref)].flatMap(({ from: start, to, held: by }) =>
          by === undefined ? [] : cut(ref.buffer, start, to),
        ),
      ),
      ...parts.flatMap((ref) => piecesIn(plan, ref)),
    ],
  };
  return found[from];
}

/** What is left of a tensor without the parts that single ranks hold. */
function piecesIn(plan: Pick<StepProgram, "held">, ref: TensorRef): TensorRef[] {
  return [...rangesOf(plan, ref)].flatMap(({ from, to, held }) =>
    held === undefined ? cut(ref.buffer, from, to) : [],
  );
}

function cut(buffer: string, from: number, to: number): TensorRef[] {
  const pieces: TensorRef[] = [];
  for (let at = from; at < to; at += PIECE_BYTES) {
    const shape = [Math.min(PIECE_BYTES, to - at)];
    pieces.push({ buffer, byteOffset: at, type: { dtype: "uint8", shape } });
  }
  return pieces;
}

/** Equal for ranks that keep the same parts. */
export function placeOf({ kept, divided }: StepProgram): number {
  const text = kept.map(
    ({ buffer, byteOffset, byteLength: length }) => `${buffer} ${byteOffset} ${length}\n`,
  );
  // Ranks that divide sequences alone hold the same.
  const place = divided === undefined || divided.tensors.size === 0 ? "" : divided.place;
  return crc32(`${text.join("")}${place}`);
}
