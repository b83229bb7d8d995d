import assert from "node:assert/strict";
import { test } from "node:test";
import {
  add,
  binaryCrossEntropyWithLogits,
  cast,
  crossEntropy,
  equal,
  gather,
  mul,
  reduceMean,
  reshape,
  slice,
  sub,
  where,
} from "../functional/index.ts";
import type { Value } from "../graph/index.ts";
import { defineModel, dlrm, embedding, gpt, linear, type Scope } from "../nn/index.ts";
import { fieldRanges } from "./field-ranges.ts";

const BATCH = 3;
const mean = (x: Value) => reduceMean(x, { keepdims: false });

/** Returns the ranges of a model with one field `ids` (batch, 4), as text. */
function rangesOf(body: (m: Scope, ids: Value) => Value): string[] {
  const model = defineModel("one_field", (m) => ({
    loss: mean(body(m, m.input("ids", [m.batch, 4], "int32"))),
  })).build({ batch: BATCH, mode: "train" });
  return (fieldRanges(model).get("ids") ?? []).map((range) =>
    range === undefined
      ? "any"
      : `${range.low}..${range.high}${range.except.map((value) => `,${value}`).join("")}`,
  );
}

const table = (m: Scope, ids: Value, vocabulary: number) =>
  embedding(m.child("table"), ids, { vocabulary, width: 2 });

test("ids and targets of a language model are limited to its vocabulary", () => {
  const model = gpt({ layers: 1, width: 8, heads: 2, context: 4, vocabulary: 50 });
  const ranges = fieldRanges(model.build({ batch: 2, mode: "train" }));
  const all = [{ low: 0, high: 49, except: [] }];
  assert.deepEqual(Object.fromEntries(ranges), { ids: all, targets: all });
});

test("columns of one field have the ranges of the tables that they index", () => {
  const model = dlrm({ dense: 3, categories: [5, 100, 7] });
  const ranges = fieldRanges(model.build({ batch: 2, mode: "train" }));
  assert.deepEqual(
    ranges.get("categories")?.map((range) => range?.high),
    [4, 99, 6],
  );
  assert.equal(ranges.has("dense"), false);
});

test("a value that is sliced off has no range; one that is cast, reshaped or shifted has", () => {
  assert.deepEqual(
    rangesOf((m, ids) => table(m, slice(ids, [{ axis: 1, start: 0, end: 2 }]), 9)),
    ["0..8", "0..8", "any", "any"],
  );
  const moved = (ids: Value) => reshape(cast(ids, "int64"), [4 * BATCH]);
  assert.deepEqual(
    rangesOf((m, ids) => table(m, sub(moved(ids), 1), 9)),
    ["1..9"],
  );
  assert.deepEqual(
    rangesOf((m, ids) => table(m, add(moved(ids), 2), 9)),
    ["-2..6"],
  );
});

test("a replaced number is not taken for an index, nor an ignored label for a class", () => {
  const masked = (ids: Value) => where(equal(ids, -1), 0, ids);
  assert.deepEqual(
    rangesOf((m, ids) => table(m, masked(ids), 9)),
    ["0..8,-1"],
  );
  const loss = (ignoreIndex?: number) =>
    rangesOf((m, ids) => {
      const scores = linear(m.child("head"), table(m, where(equal(ids, ids), 0, ids), 1), {
        outputs: 6,
      });
      return crossEntropy(scores, ids, ignoreIndex === undefined ? {} : { ignoreIndex });
    });
  assert.deepEqual(loss(), ["0..5"]);
  assert.deepEqual(loss(-100), ["0..5,-100"]);
});

test("indices into rows that were computed may be negative", () => {
  const picked = (m: Scope, ids: Value) => {
    const rows = reshape(linear(m.child("in"), m.input("x", [m.batch, 2]), { outputs: 2 }), [
      2 * BATCH,
    ]);
    return gather(rows, ids);
  };
  assert.deepEqual(rangesOf(picked), ["-6..5"]);
});

test("targets of a binary cross-entropy range from 0 to 1, fractions included", () => {
  const body = (target: (y: Value) => Value) =>
    defineModel("binary", (m) => {
      const x = m.input("x", [m.batch, 2]);
      const y = m.input("y", [m.batch, 2]);
      return {
        loss: binaryCrossEntropyWithLogits(linear(m.child("l"), x, { outputs: 2 }), target(y)),
      };
    }).build({ batch: BATCH, mode: "train" });
  const range = { whole: false, low: 0, high: 1, except: [] };
  assert.deepEqual(Object.fromEntries(fieldRanges(body((y) => y))), { y: [range] });
  // A target that is computed from the field first has no range.
  assert.equal(fieldRanges(body((y) => sub(y, 1))).size, 0);
});

test("labels of every pixel of large images get their range quickly", () => {
  const side = 256;
  const model = defineModel("pixels", (m) => {
    const x = m.input("x", [m.batch, 3, side, side]);
    const y = m.input("y", [m.batch, side, side], "int32");
    return {
      loss: crossEntropy(mul(x, m.parameter("w", [], { kind: "ones" })), y, {
        axis: 1,
        ignoreIndex: 255,
      }),
    };
  }).build({ batch: BATCH, mode: "train" });
  assert.deepEqual(fieldRanges(model).get("y"), [{ low: 0, high: 2, except: [255] }]);
});
