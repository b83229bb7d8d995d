/**
 * Constants that the import folds equal what ONNX Runtime computes, for any numbers; otherwise they
 * are left to the engine.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as ort from "onnxruntime-node";
import { LockstepError } from "../../src/errors.ts";
import type { Graph } from "../../src/graph/index.ts";
import { importGraph } from "../../src/import/index.ts";
import { type Attribute, modelOf, node } from "../../src/import/raw.testing.ts";
import { decodeModel } from "../../src/onnx/index.ts";
import { DTYPES, type DType, isFloat, type Tensor, tensorFrom } from "../../src/tensor/index.ts";

const MAX = 2n ** 63n - 1n;
const FLOATS = [0, -0, 1.5, -2.5, 3e9, -3e9, 1e20, -1e20, 1e-30, Infinity, -Infinity];

function int64(...values: bigint[]): Tensor {
  return {
    dtype: "int64",
    shape: [values.length],
    bytes: new Uint8Array(BigInt64Array.from(values).buffer),
  };
}

/**
 * Returns two vectors that pair every special value with every other. Wild ones are left to the
 * engine.
 */
function pairs(dtype: DType, isWild = false): [Tensor, Tensor] {
  if (dtype === "int64") {
    const all = [0n, 1n, -1n, 7n, MAX, -MAX - 1n, ...(isWild ? [2n ** 53n + 1n] : [])];
    return [int64(...all.flatMap((a) => all.map(() => a))), int64(...all.flatMap(() => all))];
  }
  const all = isFloat(dtype)
    ? [...FLOATS, ...(isWild ? [NaN] : [])]
    : dtype === "bool"
      ? [0, 1]
      : dtype === "uint8"
        ? [0, 1, 7, 200, 255]
        : [0, 1, -1, 7, 2 ** 31 - 1, -(2 ** 31)];
  const shape = [all.length ** 2];
  return [
    tensorFrom(
      dtype,
      shape,
      all.flatMap((a) => all.map(() => a)),
    ),
    tensorFrom(
      dtype,
      shape,
      all.flatMap(() => all),
    ),
  ];
}

interface Case {
  readonly op: string;
  readonly inputs: readonly Tensor[];
  readonly attributes?: Readonly<Record<string, Attribute>>;
}

const UNARY =
  "Abs Ceil Cos Erf Exp Floor IsInf IsNaN LeakyRelu Log Neg Not Reciprocal Relu Round Sigmoid Sign Sin Softplus Sqrt Tanh BitwiseNot";
const BINARY =
  "Add And BitwiseAnd BitwiseOr BitwiseXor Equal Greater GreaterOrEqual Less LessOrEqual Max Min Mul Or Pow PRelu Sub Xor";

function cases(): Case[] {
  const found: Case[] = [];
  for (const dtype of ["float32", "float64", "int64", "int32", "uint8", "bool"] as const) {
    found.push(...casesOf(dtype, false), ...casesOf(dtype, true));
  }
  const divisors = int64(1n, -1n, 7n);
  for (const op of ["Div", "Mod"]) {
    found.push({ op, inputs: [int64(7n, -7n, MAX), divisors] });
    found.push({ op, inputs: [int64(7n, -7n, 5n), int64(2n, 2n, -3n)] });
  }
  found.push({ op: "Div", inputs: pairs("float32") });
  return found;
}

function casesOf(dtype: DType, isWild: boolean): Case[] {
  const found: Case[] = [];
  const [a, b] = pairs(dtype, isWild);
  for (const op of UNARY.split(" ")) found.push({ op, inputs: [a] });
  for (const op of BINARY.split(" ")) found.push({ op, inputs: [a, b] });
  for (const to of Object.keys(DTYPES) as DType[]) {
    if (to === "bfloat16") continue;
    found.push({ op: "Cast", inputs: [a], attributes: { to: DTYPES[to].onnx } });
  }
  found.push({ op: "Concat", inputs: [a, b], attributes: { axis: 0 } });
  found.push({ op: "Gather", inputs: [a, int64(3n, -1n, 0n)], attributes: { axis: 0 } });
  found.push({ op: "Slice", inputs: [a, int64(1n), int64(MAX), int64(0n), int64(3n)] });
  found.push({ op: "Slice", inputs: [a, int64(-1n), int64(-MAX - 1n), int64(0n), int64(-2n)] });
  found.push({ op: "Unsqueeze", inputs: [a, int64(0n)] });
  found.push({ op: "ReduceMax", inputs: [a], attributes: { keepdims: 0 } });
  found.push({ op: "ReduceMin", inputs: [a], attributes: { keepdims: 0 } });
  found.push({ op: "ReduceSum", inputs: [a], attributes: { keepdims: 0 } });
  found.push({ op: "ArgMax", inputs: [a], attributes: { keepdims: 0 } });
  if (!isFloat(dtype)) found.push({ op: "CumSum", inputs: [b, tensorFrom("int64", [], [0])] });
  const condition = tensorFrom(
    "bool",
    a.shape,
    Array.from({ length: a.shape[0] ?? 0 }, (_, i) => i % 2),
  );
  found.push({ op: "Where", inputs: [condition, a, b] });
  const bounds = [-1, 7].map((bound) => tensorFrom(dtype, [], [bound]));
  if (dtype.includes("int") && dtype !== "uint8")
    found.push({ op: "Clip", inputs: [a, ...bounds] });
  found.push({ op: "Expand", inputs: [a, tensorFrom("int64", [2], [2, a.shape[0] ?? 0])] });
  found.push({ op: "Tile", inputs: [a, int64(2n)] });
  return found;
}

test("special numbers are folded as the engine computes them, or left to it", async () => {
  const faults: string[] = [];
  let folded = 0;
  for (const { op, inputs, attributes = {} } of cases()) {
    const names = inputs.map((_, index) => `c${index}`);
    const bytes = modelOf({
      opset: 18,
      inputs: { x: [1] },
      outputs: ["y", "z"],
      weights: Object.fromEntries(inputs.map((tensor, index) => [names[index], tensor])),
      nodes: [node(op, names, ["y"], attributes), node("Identity", ["x"], ["z"])],
    });
    const label = `${op}(${inputs.map(({ dtype }) => dtype).join(", ")}) ${JSON.stringify(attributes)}`;
    let session: ort.InferenceSession;
    try {
      session = await ort.InferenceSession.create(bytes, {
        logSeverityLevel: 4,
        graphOptimizationLevel: "disabled",
        intraOpNumThreads: 1,
      });
    } catch {
      continue; // the engine has no kernel for this type
    }
    const graph = fold(bytes, label);
    const isFolded = graph?.nodes.every(({ op: own }) => own === "Identity") === true;
    if (graph === undefined || !isFolded) continue;
    folded += 1;
    const feeds = { x: new ort.Tensor("float32", [1], [1]) };
    const want = (await session.run(feeds))["y"] as ort.Tensor;
    const got = constantOf(graph, "y");
    if (got.shape.join() !== want.dims.join()) faults.push(`${label}: shape ${got.shape.join()}`);
    else faults.push(...differences(got, want, label));
  }
  assert.deepEqual(faults, []);
  assert.ok(folded > 150, `${folded} were folded`);
});

/** Returns the constant of an output, which passes an Identity. */
function constantOf(graph: Graph, name: string): Tensor {
  const node = graph.nodes.find(({ outputs }) => outputs[0] === name);
  return graph.constants.get(node?.inputs[0] ?? name) as Tensor;
}

function fold(bytes: Uint8Array, label: string) {
  try {
    return importGraph(decodeModel(bytes)).graph;
  } catch (error) {
    assert.ok(error instanceof LockstepError, `${label}: ${String(error)}`);
    return undefined;
  }
}

function differences(got: Tensor, want: ort.Tensor, label: string): string[] {
  const data = want.data as ArrayLike<number | bigint | boolean>;
  const expected = Array.from(data, (value) =>
    typeof value === "boolean" ? Number(value) : value,
  );
  const actual = valuesOf(got, want);
  const at = expected.findIndex((value, index) => !isSame(actual[index], value));
  return at < 0 ? [] : [`${label}: [${at}] is ${actual[at]}, not ${expected[at]}`];
}

function valuesOf({ bytes }: Tensor, want: ort.Tensor): (number | bigint)[] {
  const Kind = want.data.constructor as new (buffer: ArrayBuffer) => ArrayLike<number | bigint>;
  return Array.from(new Kind(Uint8Array.from(bytes).buffer));
}

function isSame(a: number | bigint | undefined, b: number | bigint): boolean {
  if (typeof a !== "number" || typeof b !== "number") return a === b;
  // Zeros of either sign are equal: engines add zeros to select.
  return Object.is(a, b) || a === b || Math.abs(a - b) <= 1e-5 * Math.abs(b);
}
