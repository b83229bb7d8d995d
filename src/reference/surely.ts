/**
 * Computes one node with known inputs, but only if the result is the same on every engine. The
 * interpreter holds numbers as float64: integers beyond 2^53 would be rounded, and engines disagree
 * on an infinity cast to an integer.
 */
import { LockstepError } from "../errors.ts";
import type { Node } from "../graph/index.ts";
import { type DType, isFloat, type Tensor, type TensorType } from "../tensor/index.ts";
import { computeNode } from "./interpreter.ts";
import { fromTensor, type ReferenceTensor, round, toTensor } from "./tensor.ts";

type Inputs = readonly (ReferenceTensor | undefined)[];
type Evaluated = Pick<Node, "op" | "name" | "attributes">;

/** The largest integer up to which a float64 represents all integers. */
const EXACT = Number.MAX_SAFE_INTEGER;
/** The float64 that stands for the ends of int64 ("to the end" of a slice). */
const END = 2 ** 63;
/**
 * Two pairs of values that stand in for the largest and the smallest integer: a result that only
 * moves or compares them is the same for both pairs.
 */
const STAND_INS = [
  { high: 2 ** 52, low: 2 ** 10 - 2 ** 52 },
  { high: 2 ** 52 + 2 ** 20, low: 2 ** 11 - 2 ** 52 - 2 ** 20 },
] as const;

/**
 * The node's outputs, or undefined if an engine must compute them.
 * @throws ONNX_UNSUPPORTED for a node that no engine can compute, such as an integer divided by
 * zero
 */
export function evaluateSurely(
  node: Evaluated,
  constants: readonly (Tensor | undefined)[],
  types: readonly TensorType[],
): readonly Tensor[] | undefined {
  const inputs = constants.map((tensor) => tensor && fromTensor(tensor));
  const wholes = types.filter(({ dtype }) => isWhole(dtype)).map(({ dtype }) => limitsOf(dtype));
  for (const input of inputs) {
    if (input === undefined) continue;
    const isFractional = isFloat(input.dtype);
    for (const value of input.data) {
      // All engines agree which of two numbers is larger, but not if one of them is NaN.
      if (Number.isNaN(value)) return undefined;
      if (isFractional && !wholes.every(([low, high]) => value > low - 1 && value < high + 1)) {
        return undefined;
      }
      if (!isFractional && Math.abs(value) > EXACT && Math.abs(value) !== END) return undefined;
    }
  }
  const has = (end: number) =>
    inputs.some((input) => input && !isFloat(input.dtype) && input.data.includes(end));
  const ends = [-END, END].filter(has);
  const results =
    ends.length === 0 ? evaluate(node, inputs, types) : evaluateEnds(node, inputs, types);
  if (results === undefined) return undefined;
  const isDivided = inputs.every((input) => input === undefined || !isFloat(input.dtype));
  for (const { dtype, data } of results) {
    if (!isWhole(dtype)) continue;
    if (isDivided && data.some((value) => !Number.isFinite(value))) {
      throw new LockstepError(
        "ONNX_UNSUPPORTED",
        "its result cannot be computed: it would be an integer that is infinite, or none at all",
      );
    }
    if (!data.every((value) => Math.abs(value) <= EXACT || ends.includes(value))) return undefined;
  }
  return results.map((result) => toTensor(round(result)));
}

/** Undefined if the ends of int64 take part in arithmetic: sums with them wrap around. */
function evaluateEnds(
  node: Evaluated,
  inputs: Inputs,
  types: readonly TensorType[],
): readonly ReferenceTensor[] | undefined {
  const [first, second] = STAND_INS.map(({ high, low }) => {
    const stand = (value: number) => (value === END ? high : value === -END ? low : value);
    return evaluate(
      node,
      inputs.map((input) => input && replaced(input, stand)),
      types,
    );
  });
  if (first === undefined || second === undefined) return undefined;
  let isSure = types.every(({ dtype }) => dtype === "int64" || dtype === "bool");
  const results = first.map((result, at) => {
    const other = second[at] as ReferenceTensor;
    return replaced(result, (value, index) => {
      const twin = other.data[index] as number;
      if (Object.is(value, twin)) return value;
      const side = value > 0 ? "high" : "low";
      isSure &&= value === STAND_INS[0][side] && twin === STAND_INS[1][side];
      return side === "high" ? END : -END;
    });
  });
  return isSure ? results : undefined;
}

/** Undefined for a node that the interpreter cannot compute. */
function evaluate(
  node: Evaluated,
  inputs: Inputs,
  types: readonly TensorType[],
): readonly ReferenceTensor[] | undefined {
  try {
    return computeNode(node, inputs, types);
  } catch (error) {
    if (error instanceof LockstepError) throw error;
    return undefined;
  }
}

function replaced(
  tensor: ReferenceTensor,
  change: (value: number, index: number) => number,
): ReferenceTensor {
  return { ...tensor, data: tensor.data.map(change) };
}

function isWhole(dtype: DType): boolean {
  return !isFloat(dtype) && dtype !== "bool";
}

/** The smallest and the largest integer of a type that are exact here. */
function limitsOf(dtype: DType): readonly [number, number] {
  const bits = Number(/\d+$/.exec(dtype)?.[0] ?? 1);
  const isSigned = !dtype.startsWith("u");
  const high = Math.min(2 ** (isSigned ? bits - 1 : bits) - 1, EXACT);
  return [isSigned ? Math.max(-(2 ** (bits - 1)), -EXACT) : 0, high];
}
