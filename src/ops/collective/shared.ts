/**
 * What the collectives of the domain `lockstep` share. Every rank of a mesh axis runs the same node; an engine never
 * sees one: programs are cut at them.
 *
 * Gradients are those of the sum of all ranks' losses. So the gradient of a sum over ranks is a sum over ranks, and
 * a loss that every rank holds alike counts once for each rank.
 */
import type { AttributeSpec, InferContext, Value } from "../../graph/index.ts";
import { isFloat, normalizeDim, type TensorType } from "../../tensor/index.ts";

/** The axis of the mesh along which ranks take part. */
export const meshAxis: AttributeSpec = { kind: "string" };
/** How many ranks take part: types depend on it. */
export const groupSize: AttributeSpec = { kind: "int" };
export const reduction: AttributeSpec = { kind: "string", default: "sum" };

export const REDUCTIONS = ["sum", "max", "min"] as const;
export type Reduction = (typeof REDUCTIONS)[number];

export function isReduction(name: string): name is Reduction {
  return (REDUCTIONS as readonly string[]).includes(name);
}

export function checkReduction(context: InferContext): void {
  const name = context.attributes.string("reduction");
  if (!isReduction(name)) {
    context.fail(`reduction "${name}" is none of ${REDUCTIONS.join(", ")}`);
  }
}

export function sizeOf(context: InferContext): number {
  const size = context.attributes.number("size");
  return size >= 1 ? size : context.fail(`a group of ${size} ranks`);
}

/** The dim that an attribute names, counted from the end where negative. */
export function dimOf(context: InferContext, attribute: string, { shape }: TensorType): number {
  const given = context.attributes.number(attribute);
  return normalizeDim(given, shape.length) ?? context.fail(`${attribute} ${given} is out of range`);
}

/** Multiplies a dim by the number of ranks. */
export function gathered(type: TensorType, dim: number, size: number): TensorType {
  return { ...type, shape: type.shape.with(dim, (type.shape[dim] as number) * size) };
}

/** Divides a dim by the number of ranks. */
export function scattered(
  context: InferContext,
  type: TensorType,
  dim: number,
  size: number,
): TensorType {
  const total = type.shape[dim] as number;
  if (total % size !== 0) context.fail(`dim ${dim} of ${total} is not a multiple of ${size} ranks`);
  return { ...type, shape: type.shape.with(dim, total / size) };
}

/** Integers pass a collective, but no gradient does. */
export function carriesGradient(value: Value): boolean {
  return isFloat(value.dtype);
}
