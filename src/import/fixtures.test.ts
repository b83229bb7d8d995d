/**
 * Real exports of PyTorch, imported and computed here, against PyTorch's own numbers (see
 * test/onnx/make_fixtures.py).
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { differentiate } from "../autodiff/index.ts";
import { mul, reduceSum } from "../functional/index.ts";
import type { Model } from "../nn/index.ts";
import { readModel } from "../onnx/read.ts";
import { interpret } from "../reference/index.ts";
import { type Shape, type Tensor, tensorFrom, toNumbers } from "../tensor/index.ts";
import { onnx } from "./define.ts";
import { importGraph } from "./import.ts";

interface Numbers {
  readonly shape: Shape;
  readonly data: readonly number[];
}

interface Fixture {
  readonly opset: number;
  readonly inputs: Readonly<Record<string, Numbers>>;
  readonly output: Numbers;
  readonly weights: Numbers;
  readonly gradients: Readonly<Record<string, Numbers>>;
}

const folder = path.join(import.meta.dirname, "../../../test/onnx/fixtures");
const names = readdirSync(folder)
  .filter((name) => name.endsWith(".onnx"))
  .map((name) => name.slice(0, -5));

function load(name: string): { file: string; fixture: Fixture; dims: Record<string, number> } {
  const file = path.join(folder, `${name}.onnx`);
  const fixture = JSON.parse(readFileSync(path.join(folder, `${name}.json`), "utf8")) as Fixture;
  const [batch = 1, length = 1] = Object.values(fixture.inputs)[0]?.shape ?? [];
  return { file, fixture, dims: { batch, length } };
}

function feeds(fixture: Fixture, types: ReadonlyMap<string, { dtype: Tensor["dtype"] }>) {
  return Object.fromEntries(
    Object.entries(fixture.inputs).map(([name, { shape, data }]) => [
      name,
      tensorFrom(types.get(name)?.dtype ?? "float32", shape, data),
    ]),
  );
}

function close(got: Tensor | undefined, want: Numbers, what: string, tolerance = 2e-5): void {
  assert.ok(got !== undefined, what);
  assert.deepEqual(got.shape, want.shape, what);
  const scale = Math.max(1, ...want.data.map(Math.abs));
  for (const [i, value] of toNumbers(got).entries()) {
    const expected = want.data[i] as number;
    assert.ok(
      Math.abs(value - expected) <= tolerance * scale,
      `${what}[${i}]: ${value}, not ${expected}`,
    );
  }
}

function transposed({ shape, data }: Numbers): Numbers {
  const [rows = 0, columns = 0] = shape;
  const turned = data.map((_, at) => data[(at % rows) * columns + Math.floor(at / rows)] as number);
  return { shape: [columns, rows], data: turned };
}

for (const name of names.filter((item) => !item.startsWith("cnn-train"))) {
  test(`${name}: the imported graph computes what PyTorch computes`, () => {
    const { file, fixture, dims } = load(name);
    const { graph } = importGraph(readModel(file), { dims });
    const left = new Set(graph.nodes.map(({ op }) => op));
    for (const op of ["Shape", "Constant", "ConstantOfShape", "Range", "Dropout", "Unsqueeze"]) {
      assert.ok(!left.has(op), `${op} is still there`);
    }
    close(interpret(graph, feeds(fixture, graph.types))["output"], fixture.output, "output");
  });
}

for (const name of names) {
  test(`${name}: gradients equal PyTorch's`, () => {
    const { file, fixture, dims } = load(name);
    const { batch = 1 } = dims;
    const model = onnx(file, {
      dims,
      loss: ({ output, field }) => {
        const value = output("output");
        const weights = field("weights", value.shape, value.dtype);
        return reduceSum(mul(value, weights), { keepdims: false });
      },
    }).build({ batch, mode: "train" });
    const { got, gradients } = run(model, fixture);
    close(got["output"], fixture.output, "output");
    let compared = 0;
    for (const [weight, want] of Object.entries(fixture.gradients)) {
      const gradient = gradients.get(weight);
      // Convolutions that the exporter merged with a normalization have different names.
      if (gradient === undefined) continue;
      const parameter = model.parameters.find((one) => one.name === weight);
      const own = parameter?.stored?.transposed === true ? transposed(want) : want;
      close(got[gradient], own, `gradient of ${weight}`, 1e-4);
      compared++;
    }
    const expected = { mlp: 6, cnn: 2, encoder: 16, torch: 12, "cnn-train": 10 };
    const kind = name.startsWith("cnn-train") ? "cnn-train" : (name.split("-")[0] ?? "");
    assert.ok(compared >= expected[kind as keyof typeof expected], `${compared} compared`);
  });
}

function run(model: Model, fixture: Fixture) {
  const { graph, gradients } = differentiate(
    model.graph,
    model.loss,
    model.parameters.map((parameter) => parameter.name),
  );
  const inputs: Record<string, Tensor> = feeds(fixture, graph.types);
  inputs["weights"] = tensorFrom("float32", fixture.weights.shape, fixture.weights.data);
  for (const { name, initializer } of [...model.parameters, ...model.states]) {
    assert.equal(initializer.kind, "tensor");
    if (initializer.kind === "tensor") inputs[name] = initializer.tensor;
  }
  return { got: interpret(graph, inputs), gradients };
}
