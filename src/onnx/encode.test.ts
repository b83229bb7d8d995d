import assert from "node:assert/strict";
import { test } from "node:test";
import * as ort from "onnxruntime-node";
import { LockstepError } from "../errors.ts";
import type { Graph } from "../graph/index.ts";
import { tensorFrom } from "../tensor/index.ts";
import { encodeModel } from "./encode.ts";
import { modelTable } from "./schema.ts";
import { decodeMessage } from "./wire-read.ts";

const matrix = { dtype: "float32", shape: [2, 3] } as const;

function sample(): Graph {
  return {
    name: "sample",
    inputs: ["x"],
    outputs: ["y"],
    constants: new Map([["w", tensorFrom("float32", [2, 3], [1, 2, 3, 4, 5, 6])]]),
    types: new Map([
      ["x", matrix],
      ["w", matrix],
      ["h", matrix],
      ["y", matrix],
    ]),
    nodes: [
      { op: "Add", name: "add", inputs: ["x", "w"], outputs: ["h"], attributes: {} },
      {
        op: "LeakyRelu",
        name: "leaky",
        inputs: ["h"],
        outputs: ["y"],
        attributes: { alpha: { kind: "float", value: 0 } },
      },
    ],
  };
}

test("an encoded graph runs in ONNX Runtime", async () => {
  const session = await ort.InferenceSession.create(encodeModel(sample(), { valueTypes: true }));
  const x = new ort.Tensor("float32", [-10, 1, 1, 1, 1, 1], [2, 3]);
  const { y } = await session.run({ x });
  assert.deepEqual(
    Array.from(y?.data as Float32Array, (v) => v + 0),
    [0, 3, 4, 5, 6, 7],
  );
});

test("a symbolic dim accepts any size", async () => {
  const graph = sample();
  const bytes = encodeModel(
    { ...graph, constants: new Map([["w", tensorFrom("float32", [1, 3], [1, 2, 3])]]) },
    { symbolicDims: { x: { 0: "batch" }, y: { 0: "batch" } } },
  );
  const session = await ort.InferenceSession.create(bytes);
  const { y } = await session.run({ x: new ort.Tensor("float32", new Float32Array(15), [5, 3]) });
  assert.deepEqual(y?.dims, [5, 3]);
});

test("decoding gives back what was encoded, with weights as views", () => {
  const bytes = encodeModel(sample());
  const model = decodeMessage(modelTable, bytes, "sample");
  assert.equal(model.graph?.node[1]?.attribute[0]?.f, 0);
  const [weight] = model.graph?.initializer ?? [];
  assert.deepEqual(weight?.dims, [2, 3]);
  assert(weight?.rawData instanceof Uint8Array);
  assert.equal(weight.rawData.buffer, bytes.buffer);
});

test("a file cut short is ONNX_PARSE at every length", () => {
  const bytes = encodeModel(sample());
  let refused = 0;
  for (let length = 1; length < bytes.length; length++) {
    try {
      decodeMessage(modelTable, bytes.subarray(0, length), "cut.onnx");
    } catch (error) {
      assert.ok(error instanceof LockstepError && error.code === "ONNX_PARSE", String(error));
      refused++;
    }
  }
  assert.ok(refused > bytes.length / 2);
});
