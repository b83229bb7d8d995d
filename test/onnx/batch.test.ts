/**
 * Files of one batch size and files of any, trained, exported and run at several sizes, compared
 * with PyTorch's numbers.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import * as ort from "onnxruntime-node";
import { createOrtEngine, type HostTensor } from "../../src/engine/index.ts";
import { mse, onnx } from "../../src/import/index.ts";
import { encodeModel } from "../../src/onnx/index.ts";
import { sgd } from "../../src/optimizer/index.ts";
import { exportNotes, planExport } from "../../src/run/export.ts";
import { bindWeights } from "../../src/run/forward.ts";
import { tensorFrom } from "../../src/tensor/index.ts";
import { type BatchFields, createTrainer, type Trainer } from "../../src/train/index.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

interface Numbers {
  readonly shape: readonly number[];
  readonly data: readonly number[];
}

interface Fixture {
  readonly runs: readonly {
    readonly batch: number;
    readonly inputs: Readonly<Record<string, Numbers>>;
    readonly output: Numbers;
  }[];
  readonly trained: {
    readonly inputs: Readonly<Record<string, Numbers>>;
    readonly target: Numbers;
    readonly output: Numbers;
  };
}

const fixture = (name: string, end: string) =>
  path.join(import.meta.dirname, `../../../test/onnx/batch/${name}.${end}`);

function read(name: string): Fixture {
  return JSON.parse(readFileSync(fixture(name, "json"), "utf8")) as Fixture;
}

const modelOf = (name: string) =>
  onnx(fixture(name, "onnx"), { loss: mse({ prediction: "output", target: "target" }) });

for (const name of [
  "masked",
  "masked-split",
  "masked-4",
  "patches",
  "patches-3-old",
  "patches-1-old",
]) {
  test(`${name}: model.onnx takes any batch and computes what PyTorch does, before and after training`, async () => {
    const record = read(name);
    const definition = modelOf(name);
    const plan = planExport(definition, [1, 4]);
    assert.equal(plan.batch, undefined, exportNotes(plan).join());
    await trained(name, 0, async (trainer) => {
      for (const { inputs, output } of record.runs) {
        await compare(plan, trainer, inputs, output);
      }
    });
    const { inputs, target, output } = record.trained;
    await trained(name, 2, (trainer) => compare(plan, trainer, inputs, output), {
      ...inputs,
      target,
    });
  });
}

async function trained(
  name: string,
  steps: number,
  look: (trainer: Trainer) => Promise<void>,
  fields: Readonly<Record<string, Numbers>> = {},
): Promise<void> {
  const trainer = await createTrainer({
    engine,
    model: modelOf(name).build({ batch: 4, mode: "train" }),
    optimizer: sgd({ learningRate: 0.05 }),
  });
  try {
    for (let step = 0; step < steps; step++) {
      const positions = { start: step * 4, end: step * 4 + 4 };
      await trainer.step({ positions, fill: (into) => fill(into, fields) });
    }
    await look(trainer);
  } finally {
    trainer.close();
  }
}

function fill(into: BatchFields, fields: Readonly<Record<string, Numbers>>): void {
  for (const [name, { data }] of Object.entries(fields)) {
    const field = into[name] as HostTensor;
    field.bytes.set(tensorFrom(field.dtype, field.shape, data).bytes);
  }
}

/** Compares with `model.onnx` in ONNX Runtime itself. */
async function compare(
  plan: ReturnType<typeof planExport>,
  trainer: Trainer,
  inputs: Readonly<Record<string, Numbers>>,
  expected: Numbers,
): Promise<void> {
  const graph = bindWeights(plan.forward.graph, (await trainer.read()).parameters);
  const session = await ort.InferenceSession.create(encodeModel(graph, plan.forward.encode), {
    intraOpNumThreads: 1,
  });
  const feeds = Object.entries(inputs).map(([name, { shape, data }]) => {
    const isWhole = name === "ids" || name === "mask";
    const values = isWhole ? BigInt64Array.from(data, BigInt) : Float32Array.from(data);
    return [name, new ort.Tensor(isWhole ? "int64" : "float32", values, shape)] as const;
  });
  const { output } = await session.run(Object.fromEntries(feeds));
  assert.ok(output !== undefined);
  assert.deepEqual(output.dims, expected.shape);
  const largest = Math.max(...expected.data.map(Math.abs));
  for (const [i, value] of (output.data as Float32Array).entries()) {
    const error = Math.abs(value - (expected.data[i] as number)) / largest;
    assert.ok(
      error < 2e-5,
      `[${i}] of a batch of ${expected.shape[0]}: ${value}, not ${expected.data[i]}`,
    );
  }
}

test("a file in which indices of samples cannot be told from zeros keeps its batch, and says so at once", () => {
  const definition = modelOf("masked-1");
  const plan = planExport(definition, [1, 1]);
  assert.equal(plan.batch, 1);
  assert.match(
    exportNotes(plan)[0] ?? "",
    /^model\.onnx will take batches of 1 only: .*masked-1\.onnx was exported for batches of 1 and cannot be rebuilt for other sizes: node "/,
  );
  assert.throws(() => definition.build({ batch: 4, mode: "train" }), {
    code: "ONNX_UNSUPPORTED",
    message: /Train with a batch of 1 in one micro-batch/,
  });
});
