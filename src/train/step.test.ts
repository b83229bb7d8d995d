import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createOrtEngine, type EngineTensor } from "../engine/index.ts";
import { add, mul, reduceMean, sub } from "../functional/index.ts";
import { defineModel } from "../nn/index.ts";
import { adamw, sgd } from "../optimizer/index.ts";
import { tensorFrom, toNumbers } from "../tensor/index.ts";
import { createTrainer, type FillBatch, type StepRequest } from "./step.ts";

const engine = createOrtEngine({ threads: 2 });
after(() => engine.close());

/** y = 3x - 1, learned from points on the line. */
const line = defineModel("line", (m) => {
  const x = m.input("x", [m.batch, 1]);
  const y = m.input("y", [m.batch, 1]);
  const weight = m.parameter("weight", [1, 1], { kind: "zeros" });
  const bias = m.parameter("bias", [1], { kind: "zeros" });
  const error = sub(add(mul(x, weight), bias), y);
  return { loss: reduceMean(mul(error, error), { keepdims: false }) };
});

function points(step: number): StepRequest {
  const fill: FillBatch = ({ x, y }) => {
    const count = x?.shape[0] ?? 0;
    const xs = Array.from({ length: count }, (_, i) => Math.sin(i * 7 + step * 13));
    x?.bytes.set(tensorFrom("float32", [count, 1], xs).bytes);
    y?.bytes.set(
      tensorFrom(
        "float32",
        [count, 1],
        xs.map((v) => 3 * v - 1),
      ).bytes,
    );
  };
  return { positions: { start: step * 16, end: step * 16 + 16 }, fill };
}

for (const [name, optimizer] of Object.entries({
  adamw: adamw({ learningRate: 0.1, weightDecay: 0 }),
  sgd: sgd({ learningRate: 0.2, momentum: 0.5 }),
})) {
  test(`${name} finds a line`, async () => {
    const trainer = await createTrainer({
      engine,
      model: line.build({ batch: 16, mode: "train" }),
      optimizer,
    });
    let loss = Number.NaN;
    for (let step = 0; step < 200; step++) loss = (await trainer.step(points(step))).loss;
    const { weight, bias } = trainer.tensors().parameters;
    assert.ok(loss < 1e-4, `loss ${loss}`);
    assert.ok(Math.abs((toNumbers(weight as EngineTensor)[0] as number) - 3) < 0.05);
    assert.ok(Math.abs((toNumbers(bias as EngineTensor)[0] as number) + 1) < 0.05);
    trainer.close();
  });
}
