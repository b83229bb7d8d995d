/**
 * Files of converters other than PyTorch's exporter: Keras by tf2onnx, Flax by jax2onnx. Exactly
 * their parameters are trained, and 20 steps of SGD equal those of the framework. make_others.py
 * makes the files.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { createOrtEngine } from "../../src/engine/index.ts";
import { mse, onnx } from "../../src/import/index.ts";
import { sgd } from "../../src/optimizer/index.ts";
import { tensorFrom, toNumbers } from "../../src/tensor/index.ts";
import { createTrainer } from "../../src/train/index.ts";

interface Numbers {
  readonly shape: readonly number[];
  readonly data: readonly number[];
}

interface Facts {
  readonly steps: number;
  readonly rate: number;
  readonly batch: number;
  readonly input: string;
  readonly output: string;
  readonly x: Numbers;
  readonly target: Numbers;
  readonly losses: readonly number[];
  /** The weights after the steps, by the names of the file. */
  readonly after: Readonly<Record<string, Numbers>>;
}

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

const folder = path.join(import.meta.dirname, "../../../test/onnx/fixtures/others");
const factsOf = (name: string) =>
  JSON.parse(readFileSync(path.join(folder, `${name}.json`), "utf8")) as Facts;
const modelOf = (name: string, output: string) =>
  onnx(path.join(folder, `${name}.onnx`), { loss: mse({ prediction: output, target: "target" }) });

const NAMES = ["keras-conv", "keras-embed", "keras-block"];
for (const name of [...NAMES, "flax-mlp", "flax-conv", "flax-embed", "flax-block"]) {
  test(`${name}: its parameters are trained, and 20 steps equal those of the framework`, async () => {
    const facts = factsOf(name);
    const { batch, rate, steps, x, target } = facts;
    const model = modelOf(name, facts.output).build({ batch, mode: "train" });
    const names = model.parameters.map((own) => own.name).sort();
    assert.deepEqual(names, Object.keys(facts.after).sort());
    assert.deepEqual(model.notes, []);
    const trainer = await createTrainer({ engine, model, optimizer: sgd({ learningRate: rate }) });
    try {
      for (let step = 0; step < steps; step++) {
        const { loss } = await trainer.step({
          positions: { start: step * batch, end: (step + 1) * batch },
          fill: (into) => {
            for (const [field, { data }] of Object.entries({ [facts.input]: x, target })) {
              const tensor = into[field];
              assert.ok(tensor !== undefined, field);
              tensor.bytes.set(tensorFrom(tensor.dtype, tensor.shape, data).bytes);
            }
          },
        });
        const want = facts.losses[step] as number;
        assert.ok(Math.abs(loss - want) < 1e-4 * want, `step ${step}: ${loss}, not ${want}`);
      }
      for (const [key, tensor] of Object.entries((await trainer.read()).parameters)) {
        const want = facts.after[key] as Numbers;
        assert.deepEqual(tensor.shape, want.shape);
        for (const [i, value] of toNumbers(tensor).entries()) {
          const expected = want.data[i] as number;
          assert.ok(Math.abs(value - expected) < 5e-5, `${key}[${i}]: ${value}, not ${expected}`);
        }
      }
    } finally {
      trainer.close();
    }
  });
}

test("a note before the first step says what tf2onnx folded or left out", () => {
  const notesOf = (name: string, output: string) =>
    modelOf(name, output).build({ batch: 4, mode: "train" }).notes.join("\n");
  const folded = notesOf("keras-mlp", factsOf("keras-mlp").output);
  assert.match(folded, /tf2onnx folded batch normalization into .*batchnorm/);
  assert.doesNotMatch(folded, /leaves out biases/);
  const fresh = notesOf("keras-fresh", factsOf("keras-embed").output);
  assert.match(fresh, /tf2onnx leaves out biases of zeros, and these have none: .*head/);
});
