/** What one kind of recurrence computes in a step: the part in which LSTM, GRU and RNN differ. */
import { clip } from "../../functional/index.ts";
import type { AttributeReader, Value } from "../../graph/index.ts";
import { applyFunction, type CellFunction } from "./activations.ts";
import type { RecurrentForm } from "./shared.ts";

/**
 * The state. Each value is (batch, hidden), or transposed (see `Orientation`), like all values of a
 * step; `c` is LSTM's cell.
 */
export interface State {
  readonly h: Value;
  readonly c?: Value;
}

export interface StepContext {
  readonly state: State;
  /**
   * (batch, rows): the product of the input and its bias; without `innerBias`, the recurrent bias
   * is included.
   */
  readonly projected: Value;
  readonly hidden: number;
  readonly functions: readonly CellFunction[];
  readonly attributes: AttributeReader;
  /** (1, rows); it exists only with `innerBias`, and if the node has biases. */
  readonly recurrentBias: Value | undefined;
  /** Three values (1, hidden) in the order input, output, forget. */
  readonly peepholes: readonly Value[] | undefined;
  /** Splits gates into blocks of `hidden` values each; `sizes` are the numbers of blocks. */
  gates(x: Value, sizes: readonly number[]): Value[];
  /** h · Rᵀ + plus, with the `size` rows of R from `start` on. */
  product(start: number, size: number, h: Value, plus: Value | undefined): Value;
}

export interface Cell {
  readonly form: RecurrentForm;
  /** The default names of the functions of one direction. */
  readonly defaults: readonly string[];
  /** Whether the recurrent bias is inside of a product with a gate. */
  innerBias(attributes: AttributeReader): boolean;
  step(context: StepContext): State;
}

/** Applies function `index` of the cell to a gate's sums, clamped to the node's bound. */
export function activate(context: StepContext, index: number, sums: Value): Value {
  return unbounded(context, index, bounded(context.attributes, sums));
}

/** Applies a function without the bound: ONNX Runtime bounds gates, but not cells. */
export function unbounded({ functions }: StepContext, index: number, x: Value): Value {
  return applyFunction(functions[index] as CellFunction, x);
}

function bounded(attributes: AttributeReader, x: Value): Value {
  if (!attributes.has("clip") || attributes.number("clip") <= 0) return x;
  const bound = attributes.number("clip");
  return clip(x, -bound, bound);
}
