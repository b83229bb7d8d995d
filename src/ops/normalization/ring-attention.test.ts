/** Attention in a ring: its gradient, what ranks make of it together, and how it is written out. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { checkDivisions } from "../../../test/support/division-check.ts";
import { checkGradient } from "../../../test/support/gradient-check.ts";
import { drawn } from "../../../test/support/random.ts";
import { type AttributeInputs, readAttributes } from "../../graph/index.ts";
import { interpret } from "../../reference/index.ts";
import { type Tensor, tensorFrom, toNumbers } from "../../tensor/index.ts";
import { newBuilder, operators } from "../index.ts";

const FORWARD = "lockstep::RingAttention";
const BACKWARD = "lockstep::RingAttentionGradient";

interface Case {
  readonly parts: readonly [q: Tensor, k: Tensor, v: Tensor];
  readonly mask?: Tensor;
  readonly attributes?: AttributeInputs;
}

/** A mask that hides the last keys from some queries. */
function hiding(shape: readonly number[], hidden: number): Tensor {
  const count = shape.reduce((product, size) => product * size, 1);
  const numbers = Array.from({ length: count }, (_, at) =>
    at % 7 === 3 ? hidden : -0.1 * (at % 5),
  );
  return tensorFrom("float64", shape, numbers);
}

const parts = (q: readonly number[], k: readonly number[], values: number): Case["parts"] => [
  drawn(q),
  drawn(k, { seed: 2 }),
  drawn(k.with(-1, values), { seed: 3 }),
];
const same = [2, 1, 4, 2];
const shared = parts([1, 2, 1, 4, 2], [1, 1, 1, 4, 2], 2);
const CASES: Readonly<Record<string, Case>> = {
  "without a mask": { parts: parts(same, same, 3) },
  "causal, with heads that share keys": { parts: shared, attributes: { causal: 1, scale: 0.7 } },
  "other keys than queries": { parts: parts(same, [2, 1, 8, 2], 2) },
  "a mask of keys": { parts: parts(same, same, 2), mask: hiding([1, 1, 4], -1e9) },
  "a mask of −∞ over queries and keys": {
    parts: parts(same, same, 2),
    mask: hiding([4, 4], Number.NEGATIVE_INFINITY),
  },
  "causal, and a mask of keys": {
    parts: parts(same, same, 2),
    mask: hiding([2, 1, 1, 4], -30),
    attributes: { causal: 1 },
  },
};

/** The inputs of both operators. */
function inputsOf({ parts: own, mask, attributes = {} }: Case) {
  const builder = newBuilder("forward");
  const forward = mask === undefined ? own : [...own, mask];
  const made = builder.emit(
    FORWARD,
    forward.map((tensor) => builder.constant(tensor)),
    attributes,
    { outputs: 2 },
  );
  const graph = builder.build(made);
  const found = interpret(graph, {});
  const [y, sums] = graph.outputs.map((name) => found[name]) as [Tensor, Tensor];
  const backward = [...own, y, sums, drawn(y.shape, { seed: 4 })];
  return { forward, backward: mask === undefined ? backward : [...backward, mask] };
}

test("its gradient is that of its formula, also for heads that share keys, and with masks", () => {
  const shape = (tensor: Tensor) => tensor.shape;
  for (const [name, { parts: own, mask, attributes }] of Object.entries(CASES)) {
    const [q, k, v] = own.map(shape) as [number[], number[], number[]];
    assert.doesNotThrow(() => {
      checkGradient({
        inputs: { q, k, v },
        build: (values, builder) => {
          const added = mask === undefined ? [] : [builder.constant(mask)];
          const inputs = [values["q"], values["k"], values["v"], ...added];
          return builder.one(FORWARD, inputs, attributes);
        },
      });
    }, name);
  }
});

test("ranks make it together, of parts of queries and keys in sections", () => {
  for (const [name, given] of Object.entries(CASES)) {
    const { forward, backward } = inputsOf(given);
    const { attributes = {} } = given;
    for (const [op, inputs, outputs] of [
      [FORWARD, forward, 2],
      [BACKWARD, backward, 3],
    ] as const) {
      const proportions = [[1, 1]];
      const found = checkDivisions({ op, attributes, inputs, outputs, proportions, ranks: [2, 4] });
      // On 2 and 4 ranks the whole and one section, and on 2 two sections.
      assert.ok(found.length >= 5, `${name}: ${found.join("; ")}`);
    }
  }
});

test("written out for an engine, it is the same", () => {
  for (const [name, given] of Object.entries(CASES)) {
    const { forward, backward } = inputsOf(given);
    for (const [op, inputs, outputs] of [
      [FORWARD, forward, 2],
      [BACKWARD, backward, 3],
    ] as const) {
      const builder = newBuilder("written");
      const values = inputs.map((tensor) => builder.constant(tensor));
      const wanted = builder.emit(op, values, given.attributes ?? {}, { outputs });
      const definition = operators[op];
      const node = builder.nodes.at(-1);
      const attributes = readAttributes(definition, node?.attributes ?? {}, op);
      const input = (index: number) => values[index] as (typeof values)[number];
      const made = definition.written?.({ builder, attributes, inputs: values, input }) ?? [];
      const graph = builder.build([...wanted, ...made]);
      const results = graph.outputs.map((output) =>
        toNumbers(interpret(graph, {})[output] as Tensor),
      );
      for (const [at, numbers] of results.slice(0, outputs).entries()) {
        for (const [index, number] of numbers.entries()) {
          const other = results[outputs + at]?.[index] as number;
          assert.ok(Math.abs(other - number) < 1e-9, `${op} ${name}: ${other}, not ${number}`);
        }
      }
    }
  }
});
