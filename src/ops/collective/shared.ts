/**
 * What the operators of ranks have in common. They stand where what ranks hold of a value changes.
 * No engine runs them: lowering makes stages of those that send something, and nodes of the others
 * (`program/`).
 */
import { assert } from "../../errors.ts";
import type { AttributeSpec, InferContext, OperatorDefinition } from "../../graph/index.ts";
import { type AxisPlacement, isShard } from "../../mesh/index.ts";
import { normalizeDim, type TensorType } from "../../tensor/index.ts";
import { exceptAlong } from "../divisions.ts";
import { noFlops } from "../shared.ts";

/** The name of the axis, and the number of ranks on it. */
export const AXIS: Readonly<Record<string, AttributeSpec>> = {
  axis: { kind: "string" },
  ranks: { kind: "int" },
};

/** A dim, and the sizes of its sections. Default: one section. */
export const SHARD: Readonly<Record<string, AttributeSpec>> = {
  dim: { kind: "int" },
  sections: { kind: "ints", default: null },
};

/** An operator that every rank of an axis comes to. */
export function collective(
  name: string,
  options: Pick<OperatorDefinition, "attributes" | "infer"> & {
    /** The dims that it works along. */
    readonly dims: (context: InferContext) => readonly number[];
    /** Whether it may be applied to the terms of a sum. Default: true. */
    readonly linear?: boolean;
  },
): OperatorDefinition {
  const { attributes, infer, dims, linear = true } = options;
  return {
    name,
    inputs: [1, 1],
    outputs: [1, 1],
    attributes: { ...AXIS, ...attributes },
    infer,
    gradient: { missing: "gradients are made before work is divided among ranks" },
    flops: noFlops,
    inPlace: false,
    divisions: (context) => exceptAlong(context, dims(context)),
    ...(linear && { batch: { linear: "first" } }),
  };
}

/** The dim of input 0 that an attribute names. */
export function dimOf(context: InferContext, attribute = "dim"): number {
  const given = context.attributes.number(attribute);
  const dim = normalizeDim(given, context.input(0).shape.length);
  return dim ?? context.fail(`${attribute} ${given} is out of range`);
}

/** The type of input 0 with this dim `factor` times as long. */
export function resized(context: InferContext, dim: number, factor: number): readonly [TensorType] {
  const { dtype, shape } = context.input(0);
  const size = (shape[dim] as number) * factor;
  if (!Number.isInteger(size)) {
    context.fail(`dim ${dim} does not divide among ${context.attributes.number("ranks")} ranks`);
  }
  return [{ dtype, shape: shape.with(dim, size) }];
}

/** The attributes of a dim that is sharded, as nodes have them. */
export function shardAttributes(on: AxisPlacement | undefined, prefix?: "to") {
  assert(isShard(on) && on.shard !== "flat", "a dim is sharded");
  const named = (name: string) => (prefix === undefined ? name : `${prefix}_${name}`);
  return { [named("dim")]: on.shard, [named("sections")]: on.sections };
}
