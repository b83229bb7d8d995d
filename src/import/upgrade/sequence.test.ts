/**
 * Sequences of known length: each small model runs unchanged in ONNX Runtime, and without sequences
 * in Lockstep.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as ort from "onnxruntime-node";
import { decodeModel } from "../../onnx/read.ts";
import { interpret } from "../../reference/index.ts";
import { scalar, type Tensor, tensorFrom, toNumbers } from "../../tensor/index.ts";
import { importGraph } from "../import.ts";
import { type ModelParts, modelOf, node, someNumbers } from "../raw.testing.ts";

const ints = (...values: number[]) => tensorFrom("int64", [values.length], values);
const at = (position: number) => scalar("int64", position);

/** The input `x` has the shape (2, 7, 3). */
const CASES: Readonly<Record<string, Pick<ModelParts, "nodes" | "weights">>> = {
  "pieces of equal size, the last smaller": {
    nodes: [
      node("SplitToSequence", ["x", "size"], ["s"], { axis: 1 }),
      node("SequenceAt", ["s", "last"], ["y"]),
    ],
    weights: { size: at(3), last: at(-1) },
  },
  "pieces of given sizes": {
    nodes: [
      node("SplitToSequence", ["x", "sizes"], ["s"], { axis: -2 }),
      node("SequenceAt", ["s", "second"], ["y"]),
    ],
    weights: { sizes: ints(1, 4, 2), second: at(1) },
  },
  "pieces of one, whose dim goes": {
    nodes: [
      node("SplitToSequence", ["x"], ["s"], { axis: 1, keepdims: 0 }),
      node("SequenceAt", ["s", "third"], ["y"]),
    ],
    weights: { third: at(2) },
  },
  "built, passed on, joined": {
    nodes: [
      node("Neg", ["x"], ["n"]),
      node("SequenceConstruct", ["x", "n", "x"], ["s"]),
      node("Identity", ["s"], ["t"]),
      node("ConcatFromSequence", ["t"], ["y"], { axis: -1 }),
    ],
  },
  "joined along a new axis": {
    nodes: [
      node("Neg", ["x"], ["n"]),
      node("SequenceConstruct", ["x", "n"], ["s"]),
      node("ConcatFromSequence", ["s"], ["y"], { axis: 1, new_axis: 1 }),
    ],
  },
  "inserted and erased": {
    nodes: [
      node("Neg", ["x"], ["n"]),
      node("Abs", ["x"], ["a"]),
      node("SequenceEmpty", [], ["s0"]),
      node("SequenceInsert", ["s0", "x"], ["s1"]),
      node("SequenceInsert", ["s1", "n", "first"], ["s2"]),
      node("SequenceInsert", ["s2", "a"], ["s3"]),
      node("SequenceErase", ["s3", "second"], ["s4"]),
      node("ConcatFromSequence", ["s4"], ["y"], { axis: 0 }),
    ],
    weights: { first: at(0), second: at(-2) },
  },
  "its length": {
    nodes: [
      node("SplitToSequence", ["x", "size"], ["s"], { axis: 1 }),
      node("SequenceLength", ["s"], ["count"]),
      node("Cast", ["count"], ["c"], { to: 1 }),
      node("Mul", ["x", "c"], ["y"]),
    ],
    weights: { size: at(2) },
  },
};

const load = (parts: Pick<ModelParts, "nodes" | "weights">) =>
  modelOf({ opset: 17, inputs: { x: [2, 7, 3] }, outputs: ["y"], ...parts });

for (const [name, parts] of Object.entries(CASES)) {
  test(`a sequence: ${name}`, async () => {
    const bytes = load(parts);
    const x = someNumbers([2, 7, 3]);
    const { graph } = importGraph(decodeModel(bytes));
    assert.ok(!graph.nodes.some(({ op }) => op.includes("Sequence")));
    const got = interpret(graph, { x })["y"] as Tensor;
    const session = await ort.InferenceSession.create(bytes, { intraOpNumThreads: 1 });
    const feeds = { x: new ort.Tensor("float32", Float32Array.from(toNumbers(x)), x.shape) };
    const want = (await session.run(feeds))["y"] as ort.Tensor;
    assert.deepEqual(got.shape, want.dims);
    assert.deepEqual(toNumbers(got), Array.from(want.data as Float32Array));
  });
}

test("a sequence that is not known before the graph runs, or does not fit, is refused", () => {
  const cases: [ModelParts["nodes"], RegExp, Record<string, Tensor>?][] = [
    [[node("SequenceAt", ["x", "p"], ["y"])], /an input is not a sequence/, { p: at(0) }],
    [
      [node("SequenceConstruct", ["x"], ["s"]), node("SequenceAt", ["s", "p"], ["y"])],
      /position 1 of a sequence of 1/,
      { p: at(1) },
    ],
    [
      [node("SplitToSequence", ["x", "z"], ["s"]), node("SequenceAt", ["s", "z"], ["y"])],
      /a split of 2 into 0/,
      { z: at(0) },
    ],
    [
      [node("SplitToSequence", ["x", "z"], ["s"]), node("SequenceAt", ["s", "z"], ["y"])],
      /a split of 2 into 1, 4/,
      { z: ints(1, 4) },
    ],
    [
      [node("SequenceConstruct", ["x"], ["s"]), node("Relu", ["s"], ["y"])],
      /input 0 is a sequence of tensors.*\n.*known before the graph runs/,
    ],
    [
      [
        node("SequenceConstruct", ["x"], ["s"]),
        node("ReduceMax", ["x"], ["m"], { keepdims: 0 }),
        node("Cast", ["m"], ["i"], { to: 7 }),
        node("SequenceAt", ["s", "i"], ["y"]),
      ],
      /is not known before the graph runs/,
    ],
    [
      [
        node("SequenceEmpty", [], ["s"]),
        node("SequenceErase", ["s"], ["t"]),
        node("SequenceLength", ["t"], ["y"]),
      ],
      /empty already|position/,
    ],
  ];
  for (const [nodes, message, weights = {}] of cases) {
    assert.throws(() => importGraph(decodeModel(load({ nodes, weights }))), { message });
  }
});
