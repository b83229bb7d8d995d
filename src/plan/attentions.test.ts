/** Which forms of attention are found in a graph, and that one node in their place is the same. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { drawn } from "../../test/support/random.ts";
import {
  add,
  concat,
  greaterOrEqual,
  matmul,
  mul,
  reshape,
  slice,
  softmax,
  swapLast,
  transpose,
  where,
} from "../functional/index.ts";
import type { Graph, GraphBuilder, Value } from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import { interpret } from "../reference/index.ts";
import { type Tensor, tensorFrom, toNumbers } from "../tensor/index.ts";
import { withRings } from "./attentions.ts";

type Parts = Readonly<Record<"q" | "k" | "v" | "mask", Value>>;
type Written = (parts: Parts, builder: GraphBuilder) => Value;

const LENGTH = 4;
const SHAPES = { q: [2, 3, LENGTH, 2], k: [2, 3, LENGTH, 2], v: [2, 3, LENGTH, 5] };

const numbers = (count: number, from = 0) =>
  Array.from({ length: count }, (_, index) => from + index);
const places = (builder: GraphBuilder, shape: readonly number[], from = 0) =>
  builder.constant(
    tensorFrom(
      "int64",
      shape,
      numbers(shape[0] === 1 ? (shape[1] ?? 1) : (shape[0] as number), from),
    ),
  );
const isSeen = (builder: GraphBuilder, rows = LENGTH, columns = LENGTH, from = 0) =>
  greaterOrEqual(places(builder, [rows, 1], from), places(builder, [1, columns]));
const hidden = (builder: GraphBuilder, number: number) => builder.scalar("float64", number);
const causal = (builder: GraphBuilder, ...of: number[]) =>
  where(isSeen(builder, ...of), hidden(builder, 0), hidden(builder, -1e9));
const scores = ({ q, k }: Parts) => matmul(q, swapLast(k));

/** Attention in blocks of two queries. */
const inBlocks: Written = ({ q, k, v, mask }, builder) => {
  const range = (x: Value, axis: number, start: number, end: number) =>
    slice(x, [{ axis, start, end }]);
  const parts = [0, 2].map((start) => {
    const end = start + 2;
    const own = matmul(range(q, -2, start, end), swapLast(range(k, -2, 0, end)));
    const seen = add(own, causal(builder, 2, end, start));
    const weights = softmax(add(seen, range(mask, -1, 0, end)));
    return matmul(weights, range(v, -2, 0, end));
  });
  return concat(parts, -2);
};

const FOUND: Readonly<Record<string, Written>> = {
  "a scale, and a mask of keys": (parts) =>
    matmul(softmax(add(mul(scores(parts), 0.3), parts.mask)), parts.v),
  "a causal mask of positions": (parts, builder) =>
    matmul(softmax(add(scores(parts), causal(builder))), parts.v),
  "scores that are replaced": (parts, builder) => {
    const none = hidden(builder, Number.NEGATIVE_INFINITY);
    return matmul(softmax(where(isSeen(builder), scores(parts), none)), parts.v);
  },
  "other dims of the matrices": ({ q, k, v }) => {
    const merged = (x: Value) => reshape(x, [6, ...x.shape.slice(-2)]);
    const product = matmul(merged(q), transpose(merged(k), [0, 2, 1]));
    return matmul(softmax(reshape(product, [2, 3, LENGTH, LENGTH])), v);
  },
  "blocks of queries": inBlocks,
  "the operator Attention": ({ q, k, v }, builder) =>
    builder.one("Attention", [q, k, v], { is_causal: 1 }),
  "the operator Attention of flat heads, which share keys": ({ q, k, v }, builder) => {
    const flat = (x: Value) =>
      reshape(transpose(x, [0, 2, 1, 3]), [
        2,
        LENGTH,
        (x.shape[1] as number) * (x.shape[3] as number),
      ]);
    const one = (x: Value) => flat(slice(x, [{ axis: 1, start: 0, end: 1 }]));
    const seen = tensorFrom("bool", [3, 1, LENGTH], [1, 0, 1, 1, 1, 1, 0, 1, 0, 1, 1, 1]);
    return builder.one("Attention", [flat(q), one(k), one(v), builder.constant(seen)], {
      q_num_heads: 3,
      kv_num_heads: 1,
      scale: 0.4,
    });
  },
};

const LEFT: Readonly<Record<string, Written>> = {
  "weights that are read elsewhere": (parts) => {
    const weights = softmax(scores(parts));
    return matmul(mul(weights, weights), parts.v);
  },
  "a mask that is scaled": (parts) =>
    matmul(softmax(mul(add(scores(parts), parts.mask), 2)), parts.v),
  "a softmax along queries": (parts) => matmul(softmax(scores(parts), -2), parts.v),
  "a finite number in place of scores that are no later keys": (parts, builder) => {
    const seen = builder.constant(tensorFrom("bool", [1, LENGTH], [1, 0, 1, 1]));
    return matmul(softmax(where(seen, scores(parts), hidden(builder, -1e9))), parts.v);
  },
};

function graphOf(write: Written): Graph {
  const builder = newBuilder("attention");
  const input = (name: keyof typeof SHAPES) =>
    builder.input(name, { dtype: "float64", shape: SHAPES[name] });
  const parts = { q: input("q"), k: input("k"), v: input("v") };
  const mask = builder.input("mask", { dtype: "float64", shape: [1, 1, 1, LENGTH] });
  return builder.build([write({ ...parts, mask }, builder)]);
}

const countOf = (graph: Graph, op: string) => graph.nodes.filter((node) => node.op === op).length;
const feeds: Readonly<Record<string, Tensor>> = {
  q: drawn(SHAPES.q, { range: [-2, 2] }),
  k: drawn(SHAPES.k, { seed: 2, range: [-2, 2] }),
  v: drawn(SHAPES.v, { seed: 3 }),
  mask: tensorFrom("float64", [1, 1, 1, LENGTH], [0, -1e9, 0, -0.5]),
};

test("attention is found in the forms in which it is written, and one node makes the same", () => {
  for (const [name, write] of Object.entries(FOUND)) {
    const graph = graphOf(write);
    const one = withRings(graph, ["q", "k", "v"]);
    assert.equal(countOf(one, "lockstep::RingAttention"), 1, name);
    assert.equal(countOf(one, "Softmax") + countOf(one, "Attention"), 0, name);
    const [wanted, found] = [graph, one].map((own) =>
      toNumbers(interpret(own, feeds)[own.outputs[0] as string] as Tensor),
    );
    for (const [at, number] of (wanted as number[]).entries()) {
      assert.ok(Math.abs(number - (found?.[at] as number)) < 1e-9, name);
    }
  }
});

test("what is not quite attention stays as it is", () => {
  for (const [name, write] of Object.entries(LEFT)) {
    const graph = graphOf(write);
    assert.equal(withRings(graph, ["q", "k", "v"]), graph, name);
  }
  const learned = graphOf(FOUND["a scale, and a mask of keys"] as Written);
  assert.equal(withRings(learned, ["q", "mask"]), learned, "a mask that is trained");
});
