/**
 * One process has one ONNX Runtime: the engine works beside the official binding, and beside
 * engines of other threads.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import * as official from "onnxruntime-node";
import { createOrtEngine, evaluate } from "../src/engine/index.ts";
import { encodeModel } from "../src/onnx/index.ts";
import { newBuilder } from "../src/ops/index.ts";
import { tensorFrom, toNumbers } from "../src/tensor/index.ts";

const builder = newBuilder("negated");
const type = { dtype: "float32" as const, shape: [3] };
const graph = builder.build([builder.one("Neg", [builder.input("x", type)])]);
const [output = ""] = graph.outputs;

test("the engine works beside the official binding, which made the environment first", async () => {
  const session = await official.InferenceSession.create(encodeModel(graph));
  const engine = createOrtEngine({ threads: 2 });
  const x = tensorFrom("float32", [3], [1, 2, 3]);
  const results = await Promise.all([1, 2, 3].map(() => evaluate(engine, graph, { x })));
  for (const { [output]: result } of results) {
    assert.deepEqual(result && toNumbers(result), [-1, -2, -3]);
  }
  await engine.close();
  const again = await session.run({ x: new official.Tensor("float32", [1, 2, 3], [3]) });
  assert.deepEqual(again[output]?.data, new Float32Array([-1, -2, -3]));
  await session.release();
});

test("the engine works beside engines of other threads", async () => {
  const engine = createOrtEngine({ threads: 2 });
  const path = new URL("./support/engine-worker.js", import.meta.url);
  const answers = await Promise.all(
    [1, 10].map(async (number) => {
      const worker = new Worker(path, { workerData: [number, 2] });
      const [[answer]] = await Promise.all([once(worker, "message"), once(worker, "exit")]);
      return answer as number[];
    }),
  );
  assert.deepEqual(answers, [
    [-1, -2],
    [-10, -2],
  ]);
  const { [output]: result } = await evaluate(engine, graph, {
    x: tensorFrom("float32", [3], [4, 5, 6]),
  });
  assert.deepEqual(result && toNumbers(result), [-4, -5, -6]);
  await engine.close();
});
