/** Operands: a value, or a number that takes the element type of the other operand. */
import { assert } from "../errors.ts";
import type { GraphBuilder, Value } from "../graph/index.ts";

export type Operand = Value | number;

/** Converts two operands to values of one builder; at least one must be a value. */
export function operands(a: Operand, b: Operand): [Value, Value] {
  if (typeof a !== "number") return [a, asValue(b, a)];
  assert(typeof b !== "number", "one operand must be a value");
  return [asValue(a, b), b];
}

export function asValue(operand: Operand, like: Value): Value {
  return typeof operand === "number" ? like.builder.scalar(like.dtype, operand) : operand;
}

export function builderOf(values: readonly Value[]): GraphBuilder {
  const first = values[0];
  assert(first !== undefined, "at least one value");
  return first.builder;
}
