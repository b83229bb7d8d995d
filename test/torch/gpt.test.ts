/**
 * GPT's loss and gradients equal PyTorch's, with equal weights: on the reference interpreter and on
 * ONNX Runtime.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import { differentiate } from "../../src/autodiff/index.ts";
import { createOrtEngine, evaluate } from "../../src/engine/index.ts";
import type { Graph } from "../../src/graph/index.ts";
import { gpt, type Model, type ModelDefinition } from "../../src/nn/index.ts";
import { interpret } from "../../src/reference/index.ts";
import {
  type DType,
  elementCount,
  type Tensor,
  tensorFrom,
  toNumbers,
} from "../../src/tensor/index.ts";
import { sliceTo } from "../support/model.ts";

interface Expected {
  readonly loss: number;
  readonly gradients: Record<string, number[]>;
}

const path = new URL("../../../test/torch/fixtures/gpt.json", import.meta.url);
const expected = JSON.parse(readFileSync(path, "utf8")) as Record<string, Expected>;

const size = { layers: 2, width: 8, heads: 4, context: 5, vocabulary: 11 };
const models: Record<string, ModelDefinition> = {
  gpt2: gpt(size),
  llama: gpt({
    ...size,
    kvHeads: 2,
    positions: "rotary",
    activation: "swiglu",
    norm: "rms",
    tied: false,
    bias: false,
    hidden: 12,
  }),
};

const engine = createOrtEngine({ threads: 2 });
after(() => engine.close());

for (const [name, definition] of Object.entries(models)) {
  test(`${name}: loss and gradients equal PyTorch's, in float64`, async () => {
    await compare(name, definition, "float64", 1e-8, async (graph, inputs) =>
      interpret(graph, inputs),
    );
  });
  test(`${name}: loss and gradients equal PyTorch's, on ONNX Runtime`, async () => {
    await compare(name, definition, "float32", 1e-5, async (graph, inputs) =>
      evaluate(engine, graph, inputs),
    );
  });
}

type Evaluate = (graph: Graph, inputs: Record<string, Tensor>) => Promise<Record<string, Tensor>>;

async function compare(
  name: string,
  definition: ModelDefinition,
  dtype: DType,
  tolerance: number,
  run: Evaluate,
): Promise<void> {
  const model = definition.build({ batch: 3, mode: "train", dtype });
  const wanted = expected[name] as Expected;
  const names = model.parameters.map((parameter) => parameter.name);
  assert.deepEqual(names.toSorted(), Object.keys(wanted.gradients).toSorted());
  const { graph, gradients } = differentiate(sliceTo(model.graph, ["loss"]), "loss", names);
  const results = await run(graph, inputsOf(model));
  const loss = toNumbers(results["loss"] as Tensor)[0] as number;
  assert.ok(Math.abs(loss - wanted.loss) < tolerance, `loss ${loss}, PyTorch ${wanted.loss}`);
  for (const parameter of names) {
    const got = toNumbers(results[gradients.get(parameter) as string] as Tensor);
    const numbers = wanted.gradients[parameter] as number[];
    assert.equal(got.length, numbers.length);
    const error = Math.max(...got.map((value, i) => Math.abs(value - (numbers[i] as number))));
    assert.ok(error < tolerance, `gradient of ${parameter}: off by ${error}`);
  }
}

/** Computes the inputs with the formula of gpt.py. */
function inputsOf(model: Model): Record<string, Tensor> {
  const ids = (factor: number, offset: number): Tensor =>
    tensorFrom(
      "int32",
      [3, 5],
      Array.from({ length: 15 }, (_, i) => (i * factor + offset) % 11),
    );
  const inputs: Record<string, Tensor> = { ids: ids(7, 3), targets: ids(5, 1) };
  for (const [number, { name, type }] of model.parameters.entries()) {
    const base = name.includes("norm") && name.endsWith("weight") ? 1 : 0;
    const count = elementCount(type.shape);
    const values = Array.from({ length: count }, (_, i) => base + 0.3 * Math.sin(0.7 * i + number));
    inputs[name] = tensorFrom(type.dtype, type.shape, values);
  }
  return inputs;
}
