import type { OperatorDefinition } from "../../graph/index.ts";
import { activate, type Cell } from "./cell.ts";
import { recurrentGradient } from "./gradient.ts";
import { bySample, recurrentAttributes, recurrentFlops, recurrentTypes } from "./shared.ts";
import { unroll } from "./unroll.ts";

const cell: Cell = {
  form: { gates: 1, activations: 1, cell: false },
  defaults: ["Tanh"],
  innerBias: () => false,
  step: (context) => {
    const { state, hidden, projected, product } = context;
    return { h: activate(context, 0, product(0, hidden, state.h, projected)) };
  },
};

/**
 * h = f(x · Wᵀ + h · Rᵀ + biases) over whole sequences (Elman 1990): X (steps, batch, inputs);
 * lengths; the first state.
 */
export const rnn: OperatorDefinition = {
  name: "RNN",
  inputs: [3, 6],
  outputs: [1, 2],
  attributes: recurrentAttributes,
  infer: (context) => recurrentTypes(context, cell.form),
  gradient: recurrentGradient(cell),
  written: (context) => unroll(cell, context).outputs,
  flops: recurrentFlops,
  inPlace: false,
  divisions: bySample,
};
