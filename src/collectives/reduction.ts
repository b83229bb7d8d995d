/**
 * How values of several ranks become one, as a graph. Types narrower than 32 bits are widened once, combined, and
 * rounded once at the end.
 */
import { LockstepError } from "../errors.ts";
import { add, cast, div, maximum, minimum, mul } from "../functional/index.ts";
import { type Graph, GraphBuilder, type Value } from "../graph/index.ts";
import { operatorTable } from "../ops/index.ts";
import type { DType } from "../tensor/index.ts";

/** `mean` is for floats; sums and products of integers wrap around. */
export type Reduction = "sum" | "mean" | "max" | "min" | "prod";

export const REDUCED_TYPES = [
  "float32",
  "float64",
  "float16",
  "bfloat16",
  "int8",
  "int32",
] as const;

/** The order in which contributions are combined: a leaf is the index of one, a list combines its parts from the left. */
export type Combination = number | readonly Combination[];

/** The order of ranks: ((0 + 1) + 2) + … */
export function inOrder(count: number): Combination {
  return Array.from({ length: count }, (_, index) => index);
}

/** Throws TYPE_MISMATCH where no kernel reduces `dtype` so. */
export function checkReduction(reduction: Reduction, dtype: DType): void {
  const known = (REDUCED_TYPES as readonly DType[]).includes(dtype);
  const isInteger = dtype.startsWith("int");
  if (known && !(isInteger && reduction === "mean")) return;
  throw new LockstepError("TYPE_MISMATCH", `The ${reduction} of ${dtype} is not supported.`, {
    hint: known ? "Take the sum, or cast to a float." : `Use ${REDUCED_TYPES.join(", ")}.`,
    fields: { reduction, dtype },
  });
}

export interface ReductionGraphOptions {
  readonly dtype: DType;
  /** Elements of each input. */
  readonly length: number;
  readonly reduction: Reduction;
  readonly combination: Combination;
  /** The number of inputs x0, x1, …; each must be in the combination once. */
  readonly inputs: number;
  /** What the result is divided by: the number of ranks, where this is the last step of a mean. */
  readonly divisor?: number;
}

/** A graph (x0, x1, …) → y, all of `dtype` and `length`. */
export function reductionGraph(options: ReductionGraphOptions): Graph {
  const { dtype, length, reduction, combination, inputs, divisor = 1 } = options;
  const builder = new GraphBuilder(`${reduction} of ${inputs}`, operatorTable);
  const wide = widened(dtype);
  const values = Array.from({ length: inputs }, (_, index) =>
    cast(builder.input(`x${index}`, { dtype, shape: [length] }), wide),
  );
  const combine = operation(reduction);
  const resolve = (part: Combination): Value => {
    if (typeof part === "number") return values[part] as Value;
    const [first, ...rest] = part.map(resolve);
    return rest.reduce((sum, value) => combine(sum, value), first as Value);
  };
  let result = resolve(combination);
  if (divisor !== 1) result = div(result, divisor);
  return builder.build([cast(result, dtype)]);
}

function operation(reduction: Reduction): (a: Value, b: Value) => Value {
  switch (reduction) {
    case "sum":
    case "mean":
      return add;
    case "max":
      return maximum;
    case "min":
      return minimum;
    case "prod":
      return mul;
  }
}

function widened(dtype: DType): DType {
  switch (dtype) {
    case "float16":
    case "bfloat16":
      return "float32";
    case "int8":
      return "int32";
    default:
      return dtype;
  }
}
