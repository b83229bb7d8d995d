/** Draws LSTM, GRU and RNN nodes with every option that ONNX has. */
import fc from "fast-check";
import type { AttributeInputs, Value } from "../../src/graph/index.ts";
import type { Shape } from "../../src/tensor/index.ts";

export type RecurrentOp = "LSTM" | "GRU" | "RNN";

export interface DrawnNode {
  readonly op: RecurrentOp;
  readonly attributes: AttributeInputs;
  readonly lengths: readonly number[] | undefined;
  /** The float inputs of the node, by name. */
  readonly shapes: Readonly<Record<string, Shape>>;
  readonly batch: number;
}

const GATES = { LSTM: 4, GRU: 3, RNN: 1 } as const;
const FUNCTIONS = { LSTM: 3, GRU: 2, RNN: 1 } as const;
/** Functions that are smooth where inputs are drawn, so that finite differences hold. */
const SMOOTH = ["Sigmoid", "Tanh", "Softplus", "ScaledTanh", "Affine", "Elu"];
const NAMES = ["x", "w", "r", "b", "lengths", "h", "c", "p"];

export function drawNode(functions: readonly string[] = SMOOTH): fc.Arbitrary<DrawnNode> {
  const size = fc.integer({ min: 1, max: 3 });
  return fc
    .record({
      op: fc.constantFrom<RecurrentOp>("LSTM", "GRU", "RNN"),
      steps: fc.integer({ min: 1, max: 4 }),
      batch: size,
      inputs: size,
      hidden: size,
      direction: fc.constantFrom("forward", "reverse", "bidirectional"),
      bias: fc.boolean(),
      first: fc.boolean(),
      peepholes: fc.boolean(),
      flag: fc.boolean(),
      lengths: fc.option(fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 3, maxLength: 3 })),
      names: fc.option(fc.array(fc.constantFrom(...functions), { minLength: 6, maxLength: 6 })),
      clip: fc.option(fc.constantFrom(0.3, 5)),
    })
    .map((drawn) => {
      const { op, batch, steps, hidden, inputs, names, clip } = drawn;
      const directions = drawn.direction === "bidirectional" ? 2 : 1;
      const rows = GATES[op] * hidden;
      const count = FUNCTIONS[op] * directions;
      const isLstm = op === "LSTM";
      const state = [directions, batch, hidden];
      return {
        op,
        batch,
        lengths: drawn.lengths?.slice(0, batch).map((length) => Math.min(length, steps)),
        attributes: {
          direction: drawn.direction,
          hidden_size: hidden,
          clip: clip ?? undefined,
          ...(isLstm ? { input_forget: drawn.flag } : {}),
          ...(op === "GRU" ? { linear_before_reset: drawn.flag } : {}),
          ...(names === null
            ? {}
            : {
                activations: names.slice(0, count),
                activation_alpha: new Array<number>(count).fill(0.7),
                activation_beta: new Array<number>(count).fill(0.4),
              }),
        },
        shapes: {
          x: [steps, batch, inputs],
          w: [directions, rows, inputs],
          r: [directions, rows, hidden],
          ...(drawn.bias ? { b: [directions, 2 * rows] } : {}),
          ...(drawn.first ? { h: state } : {}),
          ...(drawn.first && isLstm ? { c: state } : {}),
          ...(drawn.peepholes && isLstm ? { p: [directions, 3 * hidden] } : {}),
        },
      };
    });
}

/** Builds the node over named values; absent ones are left out. */
export function buildNode(node: DrawnNode, values: Readonly<Record<string, Value>>): Value[] {
  const inputs = NAMES.slice(0, node.op === "LSTM" ? 8 : 6).map((name) => values[name]);
  while (inputs.at(-1) === undefined) inputs.pop();
  const { builder } = values["x"] as Value;
  const outputs = node.op === "LSTM" ? 3 : 2;
  return builder.emit(node.op, inputs, node.attributes, { outputs });
}
