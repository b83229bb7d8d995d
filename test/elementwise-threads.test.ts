/**
 * Element-wise operators and their gradients have the same bits on one thread and on two. Operators
 * for which ONNX Runtime itself breaks this are listed, and may differ in the last bits only.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { backward } from "../src/autodiff/index.ts";
import { createOrtEngine, type Device, evaluate } from "../src/engine/index.ts";
import type { Graph, GraphBuilder, Value } from "../src/graph/index.ts";
import { newBuilder } from "../src/ops/index.ts";
import { type Tensor, tensorFrom, toNumbers } from "../src/tensor/index.ts";
import { randomNumbers } from "./support/random.ts";
import { assertSameBitsAcrossThreads } from "./support/threads.ts";

/** Large enough for ONNX Runtime to split, and not a multiple of a vector's length. */
const COUNT = 100_003;

/**
 * ONNX Runtime computes vectors and single elements with different code here, and threads may meet
 * anywhere.
 */
const INEXACT = ["Celu", "Log", "Mish", "Softplus"];

const UNARY: Readonly<Record<string, readonly [number, number]>> = {
  Abs: [-3, 3],
  Acos: [-0.9, 0.9],
  Acosh: [1.1, 4],
  Asin: [-0.9, 0.9],
  Asinh: [-3, 3],
  Atan: [-3, 3],
  Atanh: [-0.9, 0.9],
  Celu: [-3, 3],
  Cos: [-3, 3],
  Cosh: [-3, 3],
  Elu: [-3, 3],
  Erf: [-3, 3],
  Exp: [-3, 3],
  Gelu: [-3, 3],
  HardSigmoid: [-4, 4],
  HardSwish: [-4, 4],
  LeakyRelu: [-3, 3],
  Log: [0.1, 3],
  Mish: [-3, 3],
  Neg: [-3, 3],
  Reciprocal: [0.1, 3],
  Relu: [-3, 3],
  Selu: [-3, 3],
  Sigmoid: [-5, 5],
  Sin: [-3, 3],
  Sinh: [-3, 3],
  Softplus: [-3, 3],
  Softsign: [-3, 3],
  Sqrt: [0.1, 3],
  Tan: [-1, 1],
  Tanh: [-3, 3],
  ThresholdedRelu: [-3, 3],
  "com.microsoft::FastGelu": [-3, 3],
  "com.microsoft::QuickGelu": [-3, 3],
};

function withGradient(build: (x: Value, builder: GraphBuilder) => Value): Graph {
  const builder = newBuilder("threads");
  const x = builder.input("x", { dtype: "float32", shape: [COUNT] });
  const y = build(x, builder);
  const weights = tensorFrom("float32", [COUNT], randomNumbers(7, COUNT));
  const [dx] = backward([y], [x], [builder.constant(weights)]);
  return builder.build([y, dx as Value]);
}

describe("threads", () => {
  let engine: Device;
  before(() => {
    engine = createOrtEngine({ threads: 2 });
  });
  after(() => engine.close());

  async function compare(graph: Graph, x: Tensor, op: string): Promise<void> {
    if (!INEXACT.includes(op)) {
      await assertSameBitsAcrossThreads(graph, { x }, { engine });
      return;
    }
    const one = await evaluate(engine, graph, { x }, { threads: 1 });
    const two = await evaluate(engine, graph, { x }, { threads: 2 });
    for (const name of graph.outputs) {
      const apart = distance(one[name] as Tensor, two[name] as Tensor);
      assert.ok(apart < 5e-7, `${op}: ${name} differs by ${apart}`);
    }
  }

  for (const [op, range] of Object.entries(UNARY)) {
    test(`${op} and its gradient`, async () => {
      const x = tensorFrom("float32", [COUNT], randomNumbers(3, COUNT, range));
      await compare(
        withGradient((value, builder) => builder.one(op, [value])),
        x,
        op,
      );
    });
  }

  for (const op of ["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean"]) {
    test(`${op} and its gradient`, async () => {
      const x = tensorFrom("float32", [COUNT], randomNumbers(3, COUNT, [0.5, 2]));
      const other = tensorFrom("float32", [COUNT], randomNumbers(5, COUNT, [0.5, 2]));
      await compare(
        withGradient((value, builder) => builder.one(op, [value, builder.constant(other)])),
        x,
        op,
      );
    });
  }
});

function distance(a: Tensor, b: Tensor): number {
  const numbers = toNumbers(b);
  return toNumbers(a).reduce(
    (most, x, i) => Math.max(most, Math.abs(x - (numbers[i] as number))),
    0,
  );
}
