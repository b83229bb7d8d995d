import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import * as ort from "onnxruntime-node";
import { add, expand, reshape, transpose } from "../functional/index.ts";
import type { Graph } from "../graph/index.ts";
import { encodeModel } from "../onnx/encode.ts";
import { readModel } from "../onnx/read.ts";
import { newBuilder } from "../ops/index.ts";
import { tensorFrom } from "../tensor/index.ts";
import { importGraph } from "./import.ts";
import { toSymbolicBatch } from "./symbolic.ts";

const fixture = (name: string) =>
  path.join(import.meta.dirname, `../../../test/onnx/fixtures/${name}.onnx`);

async function run(model: Uint8Array | string, feeds: Record<string, ort.Tensor>) {
  const session =
    typeof model === "string"
      ? await ort.InferenceSession.create(model)
      : await ort.InferenceSession.create(model);
  const results = await session.run(feeds);
  const [first] = session.outputNames;
  return results[first ?? ""] as ort.Tensor;
}

for (const [name, input, dims] of [
  ["encoder-17", "ids", [5]],
  ["encoder-13", "ids", [5]],
  ["cnn-17", "image", [2, 8, 8]],
  ["mlp-13", "x", [2, 3]],
  ["torch-encoder-16", "x", [4, 8]],
] as const) {
  test(`${name}: a graph exported for all sizes computes at one size what the original does`, async () => {
    const file = readModel(fixture(name));
    const found = toSymbolicBatch(
      (batch) => importGraph(file, { dims: { batch, length: dims[0] } }).graph,
    );
    assert.equal(found.fixed, undefined);
    const bytes = encodeModel(found.graph, found.encode);
    for (const batch of [1, 2, 7]) {
      const shape = [batch, ...dims];
      const count = shape.reduce((product, size) => product * size, 1);
      const tensor =
        input === "ids"
          ? new ort.Tensor(
              "int64",
              BigInt64Array.from({ length: count }, (_, i) => BigInt(i % 19)),
              shape,
            )
          : new ort.Tensor(
              "float32",
              Float32Array.from({ length: count }, (_, i) => Math.sin(i)),
              shape,
            );
      const [ours, original] = [
        await run(bytes, { [input]: tensor }),
        await run(fixture(name), { [input]: tensor }),
      ];
      assert.deepEqual(ours.dims, original.dims);
      const expected = original.data as Float32Array;
      for (const [i, value] of (ours.data as Float32Array).entries()) {
        assert.ok(Math.abs(value - (expected[i] ?? NaN)) < 1e-5, `${value}, not ${expected[i]}`);
      }
    }
  });
}

test("values that depend on the batch in other ways are computed in the graph", async () => {
  const build = (batch: number): Graph => {
    const b = newBuilder("shapes");
    const x = b.input("x", { dtype: "float32", shape: [batch, 2, 3] });
    // The batch occurs twice in one shape, in multiples, and as the number of repeats of a
    // constant.
    const merged = reshape(transpose(x, [1, 0, 2]), [2 * batch, 3]);
    const pairs = reshape(merged, [batch, 2, 3, 1]);
    const rows = b.constant(
      tensorFrom("float32", [batch, 1, 3, 1], new Array<number[]>(batch).fill([1, 2, 3]).flat()),
    );
    const sum = add(pairs, rows);
    const wide = expand(reshape(sum, [1, batch, 6]), [2, batch, 6]);
    return b.build([reshape(wide, [2 * batch, 6])]);
  };
  const found = toSymbolicBatch(build);
  assert.equal(found.fixed, undefined);
  const bytes = encodeModel(found.graph, found.encode);
  for (const batch of [1, 3, 4]) {
    const data = Float32Array.from({ length: batch * 6 }, (_, i) => i);
    const feeds = { x: new ort.Tensor("float32", data, [batch, 2, 3]) };
    const [ours, fixed] = [await run(bytes, feeds), await run(encodeModel(build(batch)), feeds)];
    assert.deepEqual(ours.dims, [2 * batch, 6]);
    assert.deepEqual(ours.data, fixed.data);
  }
});

test("a model that cannot be expressed for all sizes keeps its batch and says why", () => {
  const build = (batch: number): Graph => {
    const b = newBuilder("scaled");
    const x = b.input("x", { dtype: "float32", shape: [batch] });
    return b.build([b.one("Div", [x, b.scalar("float32", batch)])]);
  };
  const found = toSymbolicBatch(build, { fixedBatch: 4 });
  assert.match(found.fixed ?? "", /input 1 of node "Div_1" \(Div\) has elements that depend/);
  assert.deepEqual(found.graph.types.get("x")?.shape, [4]);
  assert.deepEqual(found.encode, {});
});
