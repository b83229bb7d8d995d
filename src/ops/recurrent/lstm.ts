import { add, mul, sub } from "../../functional/index.ts";
import type { OperatorDefinition, Value } from "../../graph/index.ts";
import { activate, type Cell, type StepContext, unbounded } from "./cell.ts";
import { recurrentGradient } from "./gradient.ts";
import { bySample, recurrentAttributes, recurrentFlops, recurrentTypes } from "./shared.ts";
import { unroll } from "./unroll.ts";

const cell: Cell = {
  form: { gates: 4, activations: 3, cell: true },
  defaults: ["Sigmoid", "Tanh", "Tanh"],
  innerBias: () => false,
  step: (context) => {
    const { state, hidden, projected, product, peepholes, attributes } = context;
    const before = state.c as Value;
    const sums = product(0, 4 * hidden, state.h, projected);
    const [input, forget, candidate, output] = gatesOf(context, sums);
    const kept = attributes.number("input_forget") === 0 ? forget : sub(1, input);
    const c = add(mul(kept, before), mul(input, candidate));
    const last = peepholes === undefined ? output : add(output, mul(peepholes[1] as Value, c));
    const o = peepholes === undefined ? output : activate(context, 0, last);
    return { h: mul(o, unbounded(context, 2, c)), c };
  },
};

/**
 * The input and forget gate, the candidate and the output gate; with peepholes, the output gate's
 * sum instead, because that gate reads the next cell.
 */
function gatesOf(context: StepContext, sums: Value): readonly [Value, Value, Value, Value] {
  const { peepholes, state } = context;
  if (peepholes === undefined) {
    const [three, last] = context.gates(sums, [3, 1]) as [Value, Value];
    const gates = context.gates(activate(context, 0, three), [1, 1, 1]);
    const [input, output, forget] = gates as [Value, Value, Value];
    return [input, forget, activate(context, 1, last), output];
  }
  const [i, o, f, g] = context.gates(sums, [1, 1, 1, 1]) as [Value, Value, Value, Value];
  const look = (sum: Value, weight: Value | undefined) =>
    activate(context, 0, add(sum, mul(weight as Value, state.c as Value)));
  return [look(i, peepholes[0]), look(f, peepholes[2]), activate(context, 1, g), o];
}

/**
 * Long short-term memory (Hochreiter & Schmidhuber 1997) over whole sequences: X (steps, batch,
 * inputs), W and R with rows in the order input, output, forget gate, candidate; the biases of both
 * products, concatenated; lengths; first states; peepholes.
 */
export const lstm: OperatorDefinition = {
  name: "LSTM",
  inputs: [3, 8],
  outputs: [1, 3],
  attributes: { ...recurrentAttributes, input_forget: { kind: "int", default: 0 } },
  infer: (context) => recurrentTypes(context, cell.form),
  gradient: recurrentGradient(cell),
  written: (context) => unroll(cell, context).outputs,
  flops: recurrentFlops,
  inPlace: false,
  divisions: bySample,
};
