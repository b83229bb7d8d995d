import assert from "node:assert/strict";
import { test } from "node:test";
import { cast, greater, mul, reduceMean, reduceSum, square } from "../functional/index.ts";
import type { Value } from "../graph/index.ts";
import { createMesh } from "../mesh/index.ts";
import { defineModel, linear } from "../nn/index.ts";
import { sgd } from "../optimizer/index.ts";
import { buildStep, type StepGraph, TOTALS } from "../plan/index.ts";
import { applyStrategies, data, tensor, zero1, zero2, zero3 } from "./index.ts";
import { pipeline } from "./pipeline.ts";

/** A product of two means over the batch, of which one has no gradient and is needed first. */
function stepOf(counted: (x: Value, y: Value) => Value): StepGraph {
  const model = defineModel("product", (m) => {
    const x = m.input("x", [m.batch, 6]);
    const y = linear(m.child("two"), linear(m.child("one"), x, { outputs: 6 }), { outputs: 6 });
    const mean = (value: Value) => reduceMean(value, { axes: [0], keepdims: false });
    const shares = mean(cast(greater(counted(x, y), 0), "float32"));
    return { loss: reduceSum(mul(mean(square(y)), shares), { keepdims: false }) };
  }).build({ batch: 2, mode: "train" });
  return buildStep({ model, optimizer: sgd(), microBatches: 4 });
}

const WAYS = [
  ["ZeRO-3", { shard: 2 }, [data({ axis: "shard" }), zero3(["shard"])]],
  ["parallel: pipeline", { pipeline: 2 }, [pipeline({ schedule: "1f1b" })]],
  ["parallel: tensor", { tensor: 2 }, [tensor()]],
] as const;

test("totals that are computed with parameters are refused where ranks hold parts of these", () => {
  const step = stepOf((_, y) => y);
  assert.ok(step.graphs.has(TOTALS));
  for (const [way, axes, strategies] of WAYS) {
    assert.throws(() => applyStrategies(strategies, step, createMesh(axes)), {
      code: "INVALID_OPTION",
      message: new RegExp(`^${way} does not go together yet with the loss of "product"`),
    });
  }
  const mesh = createMesh({ data: 2 });
  applyStrategies([data(), zero1(["data"])], step, mesh);
  applyStrategies([data(), zero2(["data"], 1000)], step, mesh);
});

test("totals of fields alone go together with every way", () => {
  const step = stepOf((x) => x);
  assert.ok(step.graphs.has(TOTALS));
  for (const [, axes, strategies] of WAYS) applyStrategies(strategies, step, createMesh(axes));
});
