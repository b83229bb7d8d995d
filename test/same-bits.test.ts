/**
 * Gradients of lookups, reductions and layout, at sizes for which ONNX Runtime uses its threads:
 * they have the same bits on one thread and on two, in twenty executions.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { backward } from "../src/autodiff/index.ts";
import { createOrtEngine, type Device, evaluate } from "../src/engine/index.ts";
import {
  cumSum,
  gather,
  gatherElements,
  gatherND,
  pad,
  reduceL2,
  reduceLogSumExp,
  reduceMax,
  reduceMean,
  reduceProd,
  reduceSum,
  reduceSumSquare,
  scatterND,
  slice,
  tile,
  topK,
} from "../src/functional/index.ts";
import type { Value } from "../src/graph/index.ts";
import { newBuilder } from "../src/ops/index.ts";
import {
  elementCount,
  type Shape,
  type Tensor,
  tensorFrom,
  toNumbers,
} from "../src/tensor/index.ts";
import { randomNumbers, randomSource } from "./support/random.ts";
import { assertSameBitsAcrossThreads } from "./support/threads.ts";

let engine: Device;
before(() => {
  engine = createOrtEngine({ threads: 2 });
});
after(() => engine.close());

/** Checks y and the gradient of Σ dy·y for x, for a random dy. */
async function check(
  shape: Shape,
  build: (x: Value, ids: Value | undefined) => Value,
  ids?: Tensor,
): Promise<void> {
  const b = newBuilder("same bits");
  const x = b.input("x", { dtype: "float32", shape });
  const y = build(x, ids && b.input("ids", ids));
  const dy = b.input("dy", y.type);
  const [dx] = backward([y], [x], [dy]);
  const graph = b.build([y, dx as Value]);
  const random = (own: Shape, seed: number) =>
    tensorFrom("float32", own, randomNumbers(seed, elementCount(own), [0.5, 1.5]));
  const inputs = { x: random(shape, 1), dy: random(y.shape, 2), ...(ids && { ids }) };
  await assertSameBitsAcrossThreads(graph, inputs, { engine });
}

/**
 * Returns numbers below `places`, small ones much more often than large ones, like words in a text.
 */
function draw(shape: Shape, places: number): Tensor {
  const next = randomSource(3);
  const numbers = Array.from({ length: elementCount(shape) }, () =>
    Math.floor(next() ** 3 * places),
  );
  return tensorFrom("int64", shape, numbers);
}

for (const [places, count, width] of [
  [65, 2048, 128],
  [65, 2048, 32],
  [63, 2048, 64],
  [3, 30_000, 2],
  [200, 8192, 2],
  [256, 2048, 128],
  [257, 2048, 128],
  [50_000, 2048, 32],
] as const) {
  test(`lookup of ${count} rows of ${width} in a table of ${places}`, () =>
    check([places, width], (x, ids) => gather(x, ids as Value), draw([count], places)));
}

test("lookup on the last and on a middle axis", async () => {
  await check([1024, 40], (x, ids) => gather(x, ids as Value, 1), draw([300], 40));
  await check([16, 100, 64], (x, ids) => gather(x, ids as Value, 1), draw([500], 100));
  await check([16, 300, 64], (x, ids) => gather(x, ids as Value, 1), draw([500], 300));
});

test("rows that are looked up often are summed correctly, and in pieces", async () => {
  const [places, count, width] = [1000, 30_000, 48];
  const b = newBuilder("sum");
  const table = b.input("table", { dtype: "float32", shape: [places, width] });
  const ids = draw([count], places);
  const dy = tensorFrom("float32", [count, width], randomNumbers(5, count * width));
  const rows = gather(table, b.input("ids", ids));
  const [sums] = backward([rows], [table], [b.input("dy", dy)]);
  const graph = b.build([sums as Value]);
  assert.ok(graph.nodes.filter((node) => node.op === "ScatterElements").length > 1, "pieces");
  const zeros = tensorFrom("float32", [places, width], new Float32Array(places * width));
  const found = await evaluate(engine, graph, { table: zeros, ids, dy });
  const expected = new Float64Array(places * width);
  const [numbers, values] = [toNumbers(ids), toNumbers(dy)];
  for (const [i, value] of values.entries()) {
    const at = (numbers[Math.floor(i / width)] as number) * width + (i % width);
    expected[at] = (expected[at] as number) + value;
  }
  for (const [i, sum] of toNumbers(Object.values(found)[0] as Tensor).entries()) {
    assert.ok(Math.abs(sum - (expected[i] as number)) < 1e-3, `element ${i}`);
  }
});

test("scatterND keeps all updates if tuples repeat", () => {
  const at = draw([2048, 1], 65);
  const updates = tensorFrom("float32", [2048, 128], randomNumbers(6, 2048 * 128));
  return check(
    [65, 128],
    (x, ids) => scatterND(x, ids as Value, x.builder.constant(updates), "add"),
    at,
  );
});

test("GatherElements and GatherND with repeated indices", async () => {
  const elements = draw([2048, 64], 65);
  await check([65, 64], (x, ids) => gatherElements(x, ids as Value, 0), elements);
  await check([70, 70, 64], (x, ids) => gatherND(x, ids as Value), draw([2048, 2], 70));
});

test("reductions over first, last, middle and all dims", async () => {
  for (const reduce of [reduceSum, reduceMean, reduceSumSquare, reduceL2, reduceLogSumExp]) {
    for (const axes of [[0], [2], [1], [0, 2], [0, 1, 2]]) {
      await check([64, 32, 128], (x) => reduce(x, { axes }));
    }
  }
});

test("extremes, products, running sums and sorted orders", async () => {
  await check([512, 256], (x) => reduceMax(x, { axes: [1] }));
  await check([256, 512], (x) => reduceMax(x, { axes: [0] }));
  await check([64, 512], (x) => reduceProd(x, { axes: [1] }));
  await check([512, 256], (x) => cumSum(x, 1));
  await check([512, 256], (x) => topK(x, 8).values);
});

test("operators that move elements", async () => {
  await check([64, 48, 48], (x) => pad(x, [0, 3, 3], [0, 3, 3], "reflect"));
  await check([64, 48, 48], (x) => pad(x, [0, 3, 3], [0, 3, 3], "edge"));
  await check([512, 256], (x) => slice(x, [{ axis: 1, start: 255, end: 0, step: -3 }]));
  await check([64, 256], (x) => tile(x, [8, 1]));
});
