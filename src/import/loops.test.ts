/** Loop and Scan, compared with ONNX Runtime, which runs them unchanged. */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as ort from "onnxruntime-node";
import { decodeModel } from "../onnx/read.ts";
import type { RawGraph } from "../onnx/schema.ts";
import { interpret } from "../reference/index.ts";
import { scalar, type Tensor, tensorFrom, toNumbers } from "../tensor/index.ts";
import { importGraph } from "./import.ts";
import { graphOf, info, type ModelParts, modelOf, node } from "./raw.testing.ts";

const numbers = (shape: readonly number[], seed = 1): Tensor => {
  const count = shape.reduce((product, size) => product * size, 1);
  const data = Array.from({ length: count }, (_, i) => Math.sin(1.3 * i + seed));
  return tensorFrom("float32", shape, data);
};
const count = (value: number) => scalar("int64", value);
const flag = (value: number) => scalar("bool", value);

/** Returns a body. Its inputs have the given types; a reader infers those of its outputs. */
function bodyOf(
  inputs: readonly [string, "float32" | "int64" | "bool", readonly number[]][],
  outputs: readonly [string, "float32" | "int64" | "bool", readonly number[]][],
  nodes: ModelParts["nodes"],
  weights: ModelParts["weights"] = {},
): RawGraph {
  const graph = graphOf({ outputs: [], nodes, weights });
  return {
    ...graph,
    input: inputs.map((given) => info(...given)),
    output: outputs.map((given) => info(...given)),
  };
}

/** Imports the model, runs it, and compares with ONNX Runtime on the file itself. */
async function check(parts: ModelParts, feeds: Record<string, Tensor>) {
  const bytes = modelOf(parts);
  const { graph } = importGraph(decodeModel(bytes, { name: "test.onnx" }));
  const ours = interpret(graph, feeds);
  const session = await ort.InferenceSession.create(bytes);
  const given = Object.entries(feeds).map(([name, tensor]) => [
    name,
    new ort.Tensor("float32", Float32Array.from(toNumbers(tensor)), [...tensor.shape]),
  ]);
  const theirs = await session.run(Object.fromEntries(given));
  for (const name of parts.outputs) {
    const expected = theirs[name] as ort.Tensor;
    const own = ours[name] as Tensor;
    assert.deepEqual(own.shape, [...expected.dims], name);
    for (const [i, value] of toNumbers(own).entries()) {
      const wanted = Number(expected.data[i]);
      assert.ok(Math.abs(value - wanted) <= 1e-5, `${name}[${i}]: ${value}, not ${wanted}`);
    }
  }
  return graph;
}

/** Computes h ← tanh(h · w + x[round]), and 2h for each round. */
const cell = (weights: ModelParts["weights"] = {}) =>
  bodyOf(
    [
      ["round", "int64", []],
      ["go", "bool", []],
      ["h", "float32", [2, 3]],
    ],
    [
      ["on", "bool", []],
      ["next", "float32", [2, 3]],
      ["twice", "float32", [2, 3]],
    ],
    [
      node("Gather", ["x", "round"], ["now"], { axis: 0 }),
      node("MatMul", ["h", "w"], ["hw"]),
      node("Add", ["hw", "now"], ["sum"]),
      node("Tanh", ["sum"], ["next"]),
      node("Add", ["next", "next"], ["twice"]),
      node("Identity", ["go"], ["on"]),
    ],
    weights,
  );

const loop = (limit: Tensor, weights?: ModelParts["weights"]): ModelParts => ({
  opset: 17,
  inputs: { x: [4, 2, 3] },
  outputs: ["last", "all"],
  weights: {
    limit,
    yes: flag(1),
    h0: numbers([2, 3], 4),
    ...(weights ? {} : { w: numbers([3, 3]) }),
  },
  nodes: [node("Loop", ["limit", "yes", "h0"], ["last", "all"], { body: cell(weights) })],
});

test("Loop: carried and collected values, and values from around the loop", async () => {
  const graph = await check(loop(count(4)), { x: numbers([4, 2, 3], 2) });
  assert.equal(graph.nodes.filter(({ op }) => op === "Tanh").length, 4);
});

test("Loop: a weight inside the body exists once", async () => {
  const parts = loop(count(3), { w: numbers([3, 3]) });
  const graph = await check(parts, { x: numbers([4, 2, 3], 2) });
  const weights = [...graph.constants.values()].filter(({ shape }) => shape.join() === "3,3");
  assert.equal(weights.length, 1);
});

test("Loop: no round at all, and no round because the condition is false", async () => {
  await check(loop(count(0)), { x: numbers([4, 2, 3], 2) });
  const parts = loop(count(3));
  const never = { ...parts, weights: { ...parts.weights, yes: flag(0) } };
  await check(never, { x: numbers([4, 2, 3], 2) });
});

test("Loop: a condition that follows from the round ends the loop", async () => {
  const parts = loop(count(4));
  const body = cell();
  const nodes = body.node.slice(0, -1);
  const until = { ...body, node: [...nodes, node("Less", ["round", "two"], ["on"])] };
  const bounded: ModelParts = {
    ...parts,
    weights: { ...parts.weights, two: count(2) },
    nodes: [node("Loop", ["", "yes", "h0"], ["last", "all"], { body: until })],
  };
  const graph = await check(bounded, { x: numbers([4, 2, 3], 2) });
  assert.equal(graph.nodes.filter(({ op }) => op === "Tanh").length, 3);
});

test("Loop: a number of rounds that depends on data or has no end is refused", () => {
  const refuse = (parts: ModelParts, message: RegExp) =>
    assert.throws(() => importGraph(decodeModel(modelOf(parts), { name: "test.onnx" })), {
      code: "ONNX_UNSUPPORTED",
      message,
    });
  const parts = loop(count(4));
  const body = cell();
  const nodes = body.node.slice(0, -1);
  const small = [
    node("ReduceSum", ["next"], ["total"], { keepdims: 0 }),
    node("Less", ["total", "bound"], ["on"]),
  ];
  refuse(
    {
      ...parts,
      weights: { ...parts.weights, bound: scalar("float32", 2) },
      nodes: [
        node("Loop", ["limit", "yes", "h0"], ["last", "all"], {
          body: { ...body, node: [...nodes, ...small] },
        }),
      ],
    },
    /\(Loop\): whether it goes on after a round depends on data\.\n {2}Loops are unrolled/,
  );
  const still = bodyOf(
    [
      ["round", "int64", []],
      ["go", "bool", []],
    ],
    [
      ["on", "bool", []],
      ["now", "int64", []],
    ],
    [node("Identity", ["go"], ["on"]), node("Identity", ["round"], ["now"])],
  );
  refuse(
    { ...parts, outputs: ["y"], nodes: [node("Loop", ["", "yes"], ["y"], { body: still })] },
    /a loop of more than 10000 rounds/,
  );
});

test("Loop: a loop inside a loop sees the values of all loops around it", async () => {
  const inner = bodyOf(
    [
      ["j", "int64", []],
      ["go1", "bool", []],
      ["a", "float32", [3]],
    ],
    [
      ["on1", "bool", []],
      ["b", "float32", [3]],
    ],
    [
      node("Gather", ["row", "j"], ["cell"], { axis: 0 }),
      node("Mul", ["cell", "x0"], ["part"]),
      node("Add", ["a", "part"], ["b"]),
      node("Identity", ["go1"], ["on1"]),
    ],
  );
  const outer = bodyOf(
    [
      ["i", "int64", []],
      ["go0", "bool", []],
      ["h", "float32", [3]],
    ],
    [
      ["on0", "bool", []],
      ["k", "float32", [3]],
    ],
    [
      node("Gather", ["x", "i"], ["row"], { axis: 0 }),
      node("Tanh", ["row"], ["x0"]),
      node("Loop", ["three", "yes", "h"], ["k"], { body: inner }),
      node("Identity", ["go0"], ["on0"]),
    ],
  );
  await check(
    {
      opset: 17,
      inputs: { x: [2, 3] },
      outputs: ["y"],
      weights: { two: count(2), three: count(3), yes: flag(1), zero: numbers([3]) },
      nodes: [node("Loop", ["two", "yes", "zero"], ["y"], { body: outer })],
    },
    { x: numbers([2, 3], 5) },
  );
});

for (const [name, settings] of Object.entries({
  forward: {},
  "input reversed": { scan_input_directions: [1, 0] },
  "output reversed": { scan_output_directions: [1] },
  "other axes": { scan_input_axes: [1, -2], scan_output_axes: [-1] },
})) {
  test(`Scan: ${name}`, async () => {
    const axes = name === "other axes";
    const shape = (a: number, b: number) => (axes ? [b, a, 2] : [a, b, 2]);
    const body = bodyOf(
      [
        ["h", "float32", [2, 2]],
        ["u", "float32", [2, 2]],
        ["v", "float32", [2, 2]],
      ],
      [
        ["next", "float32", [2, 2]],
        ["out", "float32", [2, 2]],
      ],
      [
        node("Mul", ["u", "v"], ["uv"]),
        node("Add", ["h", "uv"], ["sum"]),
        node("Tanh", ["sum"], ["next"]),
        node("Add", ["next", "u"], ["out"]),
      ],
    );
    await check(
      {
        opset: 17,
        inputs: { a: shape(5, 2), b: shape(5, 2) },
        outputs: ["last", "all"],
        weights: { h0: numbers([2, 2], 3) },
        nodes: [
          node("Scan", ["h0", "a", "b"], ["last", "all"], {
            body,
            num_scan_inputs: 2,
            ...settings,
          }),
        ],
      },
      { a: numbers(shape(5, 2), 1), b: numbers(shape(5, 2), 2) },
    );
  });
}
