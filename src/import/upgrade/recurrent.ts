/**
 * LSTM, GRU and RNN with the batch first: ONNX Runtime has none, so transpositions are added around
 * them. First states that are known to be zeros are omitted, because zeros are the default:
 * exporters write them for one batch size.
 */
import type { Value } from "../../graph/index.ts";
import { type Rule, type RuleTable, rewrite } from "./rule.ts";

const zeroStates: Rule = ({ node, constant }) => {
  const isZero = (index: number) => constant(index)?.bytes.every((byte) => byte === 0) ?? false;
  const inputs = node.inputs.map((value, at) =>
    (at === 5 || at === 6) && isZero(at) ? undefined : value,
  );
  if (inputs.every((value, at) => value === node.inputs[at])) return undefined;
  return rewrite(node, { inputs });
};

/**
 * The permutations of sequences and states whose batch comes first, by index of inputs and of
 * outputs.
 */
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
  GRU: [{ rule: zeroStates }, { rule: batchFirst }],
  LSTM: [{ rule: zeroStates }, { rule: batchFirst }],
  RNN: [{ rule: zeroStates }, { rule: batchFirst }],
};
