/** What one kind of recurrence computes in a step: the part that LSTM, GRU and RNN do not share. */
import { clip } from "../../functional/index.ts";
import type { AttributeReader, Value } from "../../graph/index.ts";
import { applyFunction, type CellFunction } from "./activations.ts";
import type { RecurrentForm } from "./shared.ts";

/** Each (batch, hidden), or turned (see `Orientation`), as all values of a step are; `c` is LSTM's cell. */
export interface State {
  readonly h: Value;
  readonly c?: Value;
}

export interface StepContext {
  readonly state: State;
  /** (batch, rows): the input's product and its bias; unless `innerBias` also the recurrent bias. */
  readonly projected: Value;
  readonly hidden: number;
  readonly functions: readonly CellFunction[];
  readonly attributes: AttributeReader;
  /** (1, rows); only with `innerBias`, and if the node has biases. */
  readonly recurrentBias: Value | undefined;
  /** Three of (1, hidden), in the order input, output, forget. */
  readonly peepholes: readonly Value[] | undefined;
  /** Blocks of `hidden` values each: gates. `sizes` counts them. */
  gates(x: Value, sizes: readonly number[]): Value[];
  /** h · Rᵀ + plus, with the rows of R from `start` on, `size` of them. */
  product(start: number, size: number, h: Value, plus: Value | undefined): Value;
}

export interface Cell {
  readonly form: RecurrentForm;
  /** Names of the functions of one direction. */
  readonly defaults: readonly string[];
  /** Whether the recurrent bias stands inside of a product with a gate. */
  innerBias(attributes: AttributeReader): boolean;
  step(context: StepContext): State;
}

/** Function `index` of the cell, of a gate's sums held within the node's bound. */
export function activate(context: StepContext, index: number, sums: Value): Value {
  return unbounded(context, index, bounded(context.attributes, sums));
}

/** The same of any values: ONNX Runtime bounds gates, and no cell. */
export function unbounded({ functions }: StepContext, index: number, x: Value): Value {
  return applyFunction(functions[index] as CellFunction, x);
}

function bounded(attributes: AttributeReader, x: Value): Value {
  if (!attributes.has("clip") || attributes.number("clip") <= 0) return x;
  const bound = attributes.number("clip");
  return clip(x, -bound, bound);
}
