/** LSTM, GRU and RNN with the batch first: ONNX Runtime has none, so transpositions stand around. */
import type { Value } from "../../graph/index.ts";
import type { Rule, RuleTable } from "./rule.ts";

/** Where sequences and states have their batch when it comes first, by index of inputs and of outputs. */
const INPUT_PERMS: Readonly<Record<number, readonly number[]>> = {
  0: [1, 0, 2],
  5: [1, 0, 2],
  6: [1, 0, 2],
};

const batchFirst: Rule = ({ node, int, one, emit, fail }) => {
  const layout = int("layout", 0);
  if (layout !== 0 && layout !== 1) return fail(`layout ${layout}`);
  const { layout: _, ...attributes } = node.attributes;
  if (layout === 0) return "layout" in node.attributes ? { ...node, attributes } : undefined;
  const inputs = node.inputs.map((value, index) => {
    const perm = INPUT_PERMS[index];
    return value === undefined || perm === undefined ? value : one("Transpose", [value], { perm });
  });
  const plain = Object.fromEntries(
    Object.entries(attributes).map(([name, { value }]) => [name, value]),
  ) as Parameters<typeof emit>[2];
  const results = emit(node.op, inputs, plain, Math.max(1, node.outputs.length));
  // Y (steps, directions, batch, hidden) and the last states (directions, batch, hidden).
  return results.map((result: Value | undefined, index) => {
    if (result === undefined) return undefined;
    const perm = index === 0 ? [2, 0, 1, 3] : [1, 0, 2];
    return one("Transpose", [result], { perm });
  });
};

export const recurrentRules: RuleTable = {
  GRU: [{ rule: batchFirst }],
  LSTM: [{ rule: batchFirst }],
  RNN: [{ rule: batchFirst }],
};
