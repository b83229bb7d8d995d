import assert from "node:assert/strict";
import { test } from "node:test";
import { checkDivisions, divisionTrials } from "../../../test/support/division-check.ts";
import { drawn } from "../../../test/support/random.ts";
import { tensorFrom } from "../../tensor/index.ts";
import { normalization } from "./index.ts";

const { onTwo, tried } = divisionTrials();

const other = (shape: readonly number[], seed = 7) => drawn(shape, { seed });

test("RMS normalization is divided along all dims, some of them with sums exchanged", () => {
  const op = "RMSNormalization";
  const found = onTwo({ op, inputs: [drawn([6, 12, 6]), drawn([6])] });
  assert.deepEqual(found, ["whole, whole -> whole", "0, whole -> 0", "1, whole -> 1", "2, 0 -> 2"]);
  const flat = onTwo({ op, attributes: { axis: 1 }, inputs: [drawn([6, 12, 6]), drawn([1, 6])] });
  assert.deepEqual(flat, ["whole, whole -> whole", "0, whole -> 0", "1, whole -> 1", "2, 1 -> 2"]);
  onTwo({ op, inputs: [drawn([5, 7, 6]), drawn([])] });
});

test("a rotary embedding is divided by samples, heads and positions", () => {
  const op = "RotaryEmbedding";
  const [x, flat] = [drawn([6, 12, 6, 4]), drawn([6, 12, 24])];
  const tables = [other([6, 6, 2]), other([6, 6, 2], 8)];
  assert.deepEqual(onTwo({ op, inputs: [x, ...tables] }), [
    "whole, whole, whole -> whole",
    "0, 0, 0 -> 0",
    "1, whole, whole -> 1",
    "2, 1, 1 -> 2",
    "partial, whole, whole -> partial",
  ]);
  const once = [other([1, 12, 1]), other([1, 12, 1], 8)];
  const attributes = { num_heads: 6, interleaved: 1, rotary_embedding_dim: 2 };
  const proportions = [
    [1, 1],
    [1, 1, 1],
  ];
  const byHeads = onTwo({ op, attributes, inputs: [flat, ...once], proportions });
  assert.deepEqual(byHeads.slice(0, 4), [
    "whole, whole, whole -> whole",
    "0, whole, whole -> 0",
    "0(2+2+2), whole, whole -> 0(2+2+2)",
    "2, whole, whole -> 2",
  ]);
  assert.ok(byHeads.includes("2(8+8+8), whole, whole -> 2(8+8+8)"));
  assert.ok(!byHeads.includes("2(12+12), whole, whole -> 2(12+12)"), "there are 3 heads in each");
  const ids = tensorFrom(
    "int64",
    [6, 12],
    Array.from({ length: 72 }, (_, at) => (at * 5) % 20),
  );
  const lists = [other([20, 2]), other([20, 2], 8)];
  const withIds = onTwo({ op, attributes: { num_heads: 6 }, inputs: [flat, ...lists, ids] });
  assert.ok(withIds.includes("0, whole, whole, 0 -> 0"));
  assert.ok(withIds.includes("1, whole, whole, 1 -> 1"));
  const odd = [other([1, 5, 2]), other([1, 5, 2], 8)];
  onTwo({ op, attributes: { num_heads: 5 }, inputs: [drawn([7, 5, 20]), ...odd] });
});

test("attention is divided by samples, heads and queries", () => {
  const op = "Attention";
  const inputs = [drawn([6, 6, 12, 4]), other([6, 6, 18, 4]), other([6, 6, 18, 2])];
  assert.deepEqual(onTwo({ op, inputs }), [
    "whole, whole, whole -> whole",
    "0, 0, 0 -> 0",
    "1, 1, 1 -> 1",
    "2, whole, whole -> 2",
    "whole, whole, partial -> partial",
  ]);
  const flat = [drawn([6, 12, 48]), other([6, 12, 24]), other([6, 12, 12])];
  const attributes = { q_num_heads: 12, kv_num_heads: 6, is_causal: 1 };
  const proportions = [
    [1, 1],
    [1, 1, 1],
  ];
  const grouped = onTwo({ op, attributes, inputs: flat, outputs: 4, proportions });
  assert.ok(
    grouped.includes("2(16+16+16), 2(8+8+8), 2(4+4+4) -> 2(8+8+8), 1(2+2+2), 1(2+2+2), 1(4+4+4)"),
  );
  assert.ok(grouped.includes("1(6+6), whole, whole -> 1(6+6), whole, whole, 2(6+6)"));
});

test("attention with few heads of keys and values is divided by the heads of queries", () => {
  const op = "Attention";
  for (const shared of [1, 2, 3]) {
    const four = [drawn([5, 12, 5, 4]), other([5, shared, 7, 4]), other([5, shared, 7, 2])];
    const flat = [drawn([5, 5, 48]), other([5, 7, 4 * shared]), other([5, 7, 2 * shared])];
    const attributes = { q_num_heads: 12, kv_num_heads: shared };
    const ranks = [2, 3, 4, 6, 12];
    const texts = checkDivisions({ op, inputs: four, ranks });
    const texts3 = checkDivisions({ op, attributes, inputs: flat, ranks });
    const onTwelve = texts.filter((text) => text.startsWith(`${op} on 12`));
    assert.ok(onTwelve.some((text) => text.endsWith(": 1, whole, whole -> 1")));
    assert.equal(texts3.length, texts.length);
    checkDivisions({ op, inputs: four, ranks, outputs: 4 });
  }
});

test("attention with masks, a cache, and outputs beside the result", () => {
  const op = "Attention";
  const inputs = [drawn([6, 6, 6, 4]), other([6, 6, 6, 4]), other([6, 6, 6, 4], 9)];
  const bools = tensorFrom(
    "bool",
    [6, 12],
    Array.from({ length: 72 }, (_, at) => (at % 12 === 0 || at % 5 > 1 ? 1 : 0)),
  );
  const past = [other([6, 6, 6, 4], 11), other([6, 6, 6, 4], 12)];
  const masks = [
    [6, 12],
    [6, 6, 12],
    [1, 6, 1, 12],
    [6, 1, 6, 12],
    [6, 6, 1, 1],
    [1, 1],
  ];
  for (const mask of [null, bools, ...masks.map((shape) => other(shape, 13))]) {
    for (const is_causal of [0, 1]) {
      const attributes = { is_causal, softcap: 3, qk_matmul_output_mode: 1 };
      const given = { op, attributes, proportions: [[1, 1]] };
      const found = onTwo({ ...given, inputs: [...inputs, mask, ...past], outputs: 4 });
      assert.ok(found.length >= 5);
    }
  }
});

test("LpNormalization is divided along all dims, and its norms with sums exchanged", () => {
  const op = "LpNormalization";
  const zeros = tensorFrom("float64", [6, 2], new Float64Array(12));
  for (const p of [1, 2]) {
    const found = onTwo({ op, attributes: { axis: 1, p }, inputs: [drawn([6, 12, 6])] });
    assert.deepEqual(found, ["whole -> whole", "0 -> 0", "2 -> 2", "1 -> 1"]);
    onTwo({ op, attributes: { p }, inputs: [drawn([5, 7, 6])] });
    onTwo({ op, attributes: { p, axis: 0 }, inputs: [zeros] });
  }
});

test("hardmax and LRN are divided along dims that they do not read together", () => {
  const hardmax = onTwo({ op: "Hardmax", attributes: { axis: 1 }, inputs: [drawn([6, 12, 6])] });
  assert.deepEqual(hardmax, ["whole -> whole", "0 -> 0", "2 -> 2"]);
  onTwo({ op: "Hardmax", inputs: [drawn([5, 7, 6])] });
  const lrn = onTwo({ op: "LRN", attributes: { size: 3 }, inputs: [drawn([6, 6, 12, 7])] });
  assert.deepEqual(lrn, ["whole -> whole", "0 -> 0", "2 -> 2"]);
});

test("group and instance normalization are divided by samples and by groups", () => {
  const [scale, bias] = [other([12]), other([12], 8)];
  const inputs = [drawn([6, 12, 5]), scale, bias];
  const proportions = [[1, 1]];
  const group = { op: "GroupNormalization", inputs, proportions };
  assert.deepEqual(onTwo({ ...group, attributes: { num_groups: 6 } }), [
    "whole, whole, whole -> whole",
    "0, whole, whole -> 0",
    "1, 0, 0 -> 1",
  ]);
  const many = onTwo({ ...group, attributes: { num_groups: 12 } });
  assert.ok(many.includes("1(6+6), 0(6+6), 0(6+6) -> 1(6+6)"));
  assert.equal(onTwo({ ...group, attributes: { num_groups: 1 } }).length, 2);
  const instance = onTwo({ op: "InstanceNormalization", inputs });
  assert.ok(instance.includes("1, 0, 0 -> 1"));
});

test("batch normalization is divided by channels and, with sums exchanged, by samples", () => {
  const op = "BatchNormalization";
  const positive = drawn([6], { range: [0.5, 2], seed: 5 });
  const vectors = [other([6]), other([6], 8), other([6], 9), positive];
  const inputs = [drawn([6, 6, 12]), ...vectors];
  const rest = "whole, whole, whole, whole";
  assert.deepEqual(onTwo({ op, inputs }), [
    `whole, ${rest} -> whole`,
    `0, ${rest} -> 0`,
    "1, 0, 0, 0, 0 -> 1",
    `2, ${rest} -> 2`,
  ]);
  assert.deepEqual(onTwo({ op, inputs, attributes: { training_mode: 1 }, outputs: 3 }), [
    `whole, ${rest} -> whole, whole, whole`,
    `0, ${rest} -> 0, whole, whole`,
    "1, 0, 0, 0, 0 -> 1, 0, 0",
    `2, ${rest} -> 2, whole, whole`,
  ]);
  onTwo({ op, inputs: [drawn([12, 6]), ...vectors] });
});

test("losses are divided by labels and by classes, with every reduction", () => {
  const ignoring = [{}, { ignore_index: 0 }, { ignore_index: -100 }];
  for (const op of ["SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"]) {
    const isSoftmax = op === "SoftmaxCrossEntropyLoss";
    for (const shape of [
      [6, 12],
      [6, 12, 6],
      [5, 6, 7, 2],
    ]) {
      const of = shape.toSpliced(1, 1);
      const count = of.reduce((a, b) => a * b, 1);
      for (const reduction of ["none", "sum", "mean"]) {
        for (const ignored of ignoring) {
          const at = Array.from({ length: count }, (_, i) => (i * 5) % (shape[1] as number));
          if (ignored.ignore_index === -100) at[1] = -100;
          const labels = tensorFrom(reduction === "sum" ? "int32" : "int64", of, at);
          const weights = drawn([shape[1] as number], { range: [0.5, 2] });
          const attributes = { reduction, ...ignored };
          for (const inputs of [
            [drawn(shape), labels],
            [drawn(shape), labels, weights],
          ]) {
            const found = onTwo({ op, attributes, inputs, outputs: isSoftmax ? 2 : 1 });
            const rest = inputs.length === 3 ? ", whole" : "";
            const loss = reduction === "none" ? "0" : "partial";
            const logs = (dim: number) => (isSoftmax ? `, ${dim}` : "");
            if (shape[0] === 6) assert.ok(found.includes(`0, 0${rest} -> ${loss}${logs(0)}`));
            assert.ok(found.includes(`1, whole${rest} -> partial${logs(1)}`));
          }
          onTwo({ op, attributes, inputs: [drawn(shape), labels] });
        }
      }
    }
  }
});

test("sums over a batch of halves do not overflow where a batch is cut", () => {
  const halves = (shape: readonly number[], of: (at: number) => number) => {
    const count = shape.reduce((product, size) => product * size, 1);
    return tensorFrom(
      "float16",
      shape,
      Array.from({ length: count }, (_, at) => of(at)),
    );
  };
  const vectors = [1, 0, 0, 1].map((number) => halves([6], () => number));
  onTwo({
    op: "BatchNormalization",
    attributes: { training_mode: 1 },
    inputs: [halves([6, 6, 3000], (at) => 20 + 4 * ((at * 7) % 5)), ...vectors],
    outputs: 3,
    tolerance: 0.01,
  });
  const many = [halves([6, 6], (at) => 400 + at)];
  onTwo({ op: "LpNormalization", inputs: many, tolerance: 0.01 });
  const labels = tensorFrom("int64", [6, 3000], new Array(18_000).fill(1));
  const logs = halves([6, 6, 3000], (at) => -8 - (at % 3));
  for (const attributes of [{}, { ignore_index: 0 }]) {
    const inputs = [logs, labels];
    const found = onTwo({ op: "NegativeLogLikelihoodLoss", attributes, inputs, tolerance: 0.01 });
    assert.ok(found.includes("0, 0 -> partial"));
  }
});

test("every normalization was divided", () => {
  // These are tried in the tests of what a transformer is made of.
  const elsewhere = ["LayerNormalization", "LogSoftmax", "Softmax"];
  // And these beside their own.
  elsewhere.push("lockstep::RingAttention", "lockstep::RingAttentionGradient");
  const ops = Object.values(normalization).map(({ name }) => name);
  assert.deepEqual([...tried, ...elsewhere].sort(), ops.sort());
});
