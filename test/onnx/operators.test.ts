/**
 * Modules with operators that few models have, exported by PyTorch's two exporters
 * (make_operators.py): five steps of SGD give PyTorch's losses, weights and outputs, and the export
 * runs in plain ONNX Runtime.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import * as ort from "onnxruntime-node";
import { createOrtEngine, type HostTensor } from "../../src/engine/index.ts";
import { mse, onnx } from "../../src/import/index.ts";
import { encodeModel } from "../../src/onnx/index.ts";
import { sgd } from "../../src/optimizer/index.ts";
import { bindWeights, forwardGraph } from "../../src/run/forward.ts";
import { type Shape, type Tensor, tensorFrom, toNumbers } from "../../src/tensor/index.ts";
import { createTrainer, type Trainer } from "../../src/train/index.ts";

const engine = createOrtEngine({ threads: 2 });
after(() => engine.close());

const folder = path.join(import.meta.dirname, "../../../test/onnx/operators");

interface Numbers {
  readonly shape: Shape;
  readonly data: readonly number[];
}

interface Record5 {
  readonly x: Numbers;
  readonly target: Numbers;
  readonly losses: readonly number[];
  readonly weights: Readonly<Record<string, Numbers>>;
  readonly output: Numbers;
}

function near(what: string, got: ArrayLike<number>, want: readonly number[], by: number): void {
  assert.equal(got.length, want.length, what);
  const scale = Math.max(1, ...want.map(Math.abs));
  for (const [i, value] of want.entries()) {
    const own = got[i] as number;
    assert.ok(Math.abs(own - value) <= by * scale, `${what}[${i}]: ${own}, PyTorch ${value}`);
  }
}

function write(tensor: HostTensor | undefined, { data }: Numbers): void {
  assert.ok(tensor !== undefined);
  tensor.bytes.set(tensorFrom(tensor.dtype, tensor.shape, data).bytes);
}

const files = readdirSync(folder).filter((file) => file.endsWith(".onnx"));

for (const file of files) {
  test(`${file}: five steps equal PyTorch's, and so does the export`, async () => {
    const name = file.replace(/-(?:new|old)\.onnx$/, "");
    const given = JSON.parse(readFileSync(path.join(folder, `${name}.json`), "utf8")) as Record5;
    const names = Object.keys(given.weights);
    const definition = onnx(path.join(folder, file), {
      trainable: (weight) => names.includes(weight),
      loss: mse({ prediction: "y", target: "target" }),
    });
    const batch = given.x.shape[0] as number;
    const model = definition.build({ batch, mode: "train" });
    assert.deepEqual(model.parameters.map((own) => own.name).sort(), [...names].sort());
    const optimizer = sgd({ learningRate: 0.05 });
    const trainer = await createTrainer({ engine, model, optimizer });
    try {
      for (const [step, wanted] of given.losses.entries()) {
        const positions = { start: step * batch, end: (step + 1) * batch };
        const { loss } = await trainer.step({
          positions,
          fill: (into) => {
            write(into["x"], given.x);
            write(into["target"], given.target);
          },
        });
        near(`loss of step ${step}`, [loss], [wanted], 2e-5);
      }
      const { parameters } = await trainer.read();
      for (const [weight, { data }] of Object.entries(given.weights)) {
        near(weight, toNumbers(parameters[weight] as Tensor), data, 5e-5);
      }
      const eager = definition.build({ batch, mode: "eval", exported: true });
      await checkExport(
        encodeModel(bindWeights(forwardGraph(eager), await weightsOf(trainer))),
        given,
      );
    } finally {
      trainer.close();
    }
  });
}

async function weightsOf(trainer: Trainer): Promise<Record<string, Tensor>> {
  const { parameters, states } = await trainer.read();
  return { ...parameters, ...states };
}

async function checkExport(bytes: Uint8Array, { x, output }: Record5): Promise<void> {
  const session = await ort.InferenceSession.create(bytes);
  const isWhole = session.inputMetadata[0]?.isTensor === true && session.inputMetadata[0].type;
  const fed =
    isWhole === "int64"
      ? new ort.Tensor("int64", BigInt64Array.from(x.data, BigInt), x.shape)
      : new ort.Tensor("float32", Float32Array.from(x.data), x.shape);
  const results = await session.run({ x: fed });
  const y = results["y"]?.data;
  assert.ok(y instanceof Float32Array);
  near("the exported model's output", y, output.data, 1e-4);
}
