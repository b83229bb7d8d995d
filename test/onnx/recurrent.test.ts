/**
 * PyTorch's exports of recurrent layers and loops (see make_recurrent.py): 20 steps of SGD equal
 * PyTorch's, and the export works.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { createOrtEngine } from "../../src/engine/index.ts";
import { mse, onnx, toSymbolicBatch } from "../../src/import/index.ts";
import { sgd } from "../../src/optimizer/index.ts";
import { type DType, type Shape, tensorFrom } from "../../src/tensor/index.ts";
import { createTrainer } from "../../src/train/index.ts";

const engine = createOrtEngine({ threads: 2 });
after(() => engine.close());

interface Numbers {
  readonly shape: Shape;
  readonly data: readonly number[];
}

interface Fixture {
  readonly operators: readonly string[];
  readonly x: Numbers & { readonly dtype: DType };
  readonly lengths: readonly number[] | null;
  readonly target: Numbers;
  readonly rate: number;
  readonly losses: readonly number[];
}

const folder = path.join(import.meta.dirname, "../../../test/onnx/fixtures/recurrent");
const names = readdirSync(folder)
  .filter((name) => name.endsWith(".onnx"))
  .map((name) => name.slice(0, -5));

for (const name of names) {
  const fixture = JSON.parse(readFileSync(path.join(folder, `${name}.json`), "utf8")) as Fixture;
  const model = onnx(path.join(folder, `${name}.onnx`), {
    loss: mse({ prediction: "y", target: "target" }),
  });
  const batch = fixture.x.shape[0] as number;

  test(`${name}: 20 steps of SGD equal PyTorch's`, async () => {
    const trainer = await createTrainer({
      engine,
      model: model.build({ batch, mode: "train" }),
      optimizer: sgd({ learningRate: fixture.rate }),
    });
    try {
      for (const [step, expected] of fixture.losses.entries()) {
        const { loss } = await trainer.step({
          positions: { start: step * batch, end: (step + 1) * batch },
          fill: (into) => {
            const { x, target, lengths } = fixture;
            into["x"]?.bytes.set(tensorFrom(x.dtype, x.shape, x.data).bytes);
            into["target"]?.bytes.set(tensorFrom("float32", target.shape, target.data).bytes);
            if (lengths) into["lengths"]?.bytes.set(tensorFrom("int64", [batch], lengths).bytes);
          },
        });
        assert.ok(
          Math.abs(loss - expected) <= 1e-5 * Math.max(1, expected),
          `step ${step}: ${loss}, PyTorch ${expected}`,
        );
      }
    } finally {
      trainer.close();
    }
  });
}

for (const name of ["lstm-old", "lstm-new", "gru-new", "rnn-old"]) {
  test(`${name} is exported for any batch size, with the operator that it had`, () => {
    const model = onnx(path.join(folder, `${name}.onnx`), {
      loss: mse({ prediction: "y", target: "target" }),
    });
    const symbolic = toSymbolicBatch((batch) => model.build({ batch, mode: "eval" }).graph);
    assert.equal(symbolic.fixed, undefined);
    const operator = name.split("-")[0]?.toUpperCase();
    assert.ok(symbolic.graph.nodes.some(({ op }) => op === operator));
  });
}

test("first states that an exporter wrote as zeros for one batch are left out", () => {
  const model = onnx(path.join(folder, "gru-old.onnx"), {
    loss: mse({ prediction: "y", target: "target" }),
  });
  for (const batch of [4, 7]) {
    const { graph } = model.build({ batch, mode: "eval" });
    const nodes = graph.nodes.filter(({ op }) => op === "GRU");
    assert.equal(nodes.length, 2);
    for (const { inputs } of nodes) assert.equal(inputs[5] ?? "", "");
  }
});
