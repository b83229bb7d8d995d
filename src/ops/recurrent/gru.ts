import { add, mul, sub } from "../../functional/index.ts";
import type { OperatorDefinition, Value } from "../../graph/index.ts";
import { activate, type Cell } from "./cell.ts";
import { recurrentGradient } from "./gradient.ts";
import { bySample, recurrentAttributes, recurrentFlops, recurrentTypes } from "./shared.ts";
import { unroll } from "./unroll.ts";

const cell: Cell = {
  form: { gates: 3, activations: 2, cell: false },
  defaults: ["Sigmoid", "Tanh"],
  innerBias: (attributes) => attributes.number("linear_before_reset") !== 0,
  step: (context) => {
    const { state, hidden, projected, product } = context;
    const { h } = state;
    const [gates, own] = context.gates(projected, [2, 1]) as [Value, Value];
    const both = (sums: Value) =>
      context.gates(activate(context, 0, sums), [1, 1]) as [Value, Value];
    const next = (update: Value, sums: Value) => {
      const candidate = activate(context, 1, sums);
      return { h: add(candidate, mul(update, sub(h, candidate))) };
    };
    if (!cell.innerBias(context.attributes)) {
      const [update, reset] = both(product(0, 2 * hidden, h, gates));
      return next(update, product(2 * hidden, hidden, mul(reset, h), own));
    }
    const sums = product(0, 3 * hidden, h, context.recurrentBias);
    const [ours, candidate] = context.gates(sums, [2, 1]) as [Value, Value];
    const [update, reset] = both(add(ours, gates));
    return next(update, add(own, mul(reset, candidate)));
  },
};

/**
 * Gated recurrent unit (Cho et al. 2014) over whole sequences: X (steps, batch, inputs), W and R
 * with rows in the order update, reset, candidate; the biases of both products, concatenated;
 * lengths; the first state. `linear_before_reset`: the gate is applied to the product, as in
 * PyTorch.
 */
export const gru: OperatorDefinition = {
  name: "GRU",
  inputs: [3, 6],
  outputs: [1, 2],
  attributes: { ...recurrentAttributes, linear_before_reset: { kind: "int", default: 0 } },
  infer: (context) => recurrentTypes(context, cell.form),
  gradient: recurrentGradient(cell),
  written: (context) => unroll(cell, context).outputs,
  flops: recurrentFlops,
  inPlace: false,
  divisions: bySample,
};
