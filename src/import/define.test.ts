/**
 * Models from files that train only in part, in another type, or at another batch size than they
 * were exported with.
 */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { withFolder } from "../../test/support/folder.ts";
import { interpret } from "../reference/index.ts";
import {
  convertTensor,
  type DType,
  scalar,
  type Tensor,
  tensorFrom,
  toNumbers,
} from "../tensor/index.ts";
import { onnx } from "./define.ts";
import { mse } from "./losses.ts";
import type { OnnxOptions } from "./options.ts";
import { type ModelParts, modelOf, node, someNumbers } from "./raw.testing.ts";
import { toSymbolicBatch } from "./symbolic.ts";

const loss = mse({ prediction: "y", target: "target" });
const int64 = (...values: number[]) => tensorFrom("int64", [values.length], values);

async function withModel(
  parts: ModelParts,
  body: (build: (options?: Partial<OnnxOptions>) => ReturnType<typeof onnx>) => void,
): Promise<void> {
  await withFolder({}, (folder) => {
    const file = path.join(folder, "m.onnx");
    writeFileSync(file, modelOf(parts));
    body((options) => onnx(file, { loss, ...options }));
    return Promise.resolve();
  });
}

const linear: ModelParts = {
  opset: 17,
  inputs: { x: ["batch", 3] },
  outputs: ["y"],
  weights: { w: someNumbers([3, 2]) },
  nodes: [node("MatMul", ["x", "w"], ["y"])],
};

const train = (batch: number) => ({ batch, mode: "train" }) as const;

test("an output that the loss does not need is left out, with a note, if it is unknown, of another kind or a sequence", () => {
  const parts: ModelParts = {
    ...linear,
    domains: ["acme"],
    outputs: ["y", "boxes", "kept", "pieces"],
    weights: { ...linear.weights, far: someNumbers([2]) },
    nodes: [
      ...linear.nodes,
      node("acme::Sort", ["y"], ["sorted"]),
      node("Mul", ["sorted", "far"], ["boxes"]),
      node("Relu", ["y"], ["kept"]),
      node("SplitToSequence", ["y"], ["pieces"], { axis: 1 }),
    ],
  };
  return withModel(parts, (model) => {
    const { outputs, notes, parameters } = model().build(train(4));
    assert.deepEqual(Object.keys(outputs), ["y", "kept"]);
    assert.deepEqual(
      parameters.map(({ name }) => name),
      ["w"],
    );
    assert.match(
      notes.join("\n"),
      /output "boxes" is left out, also in model\.onnx: .*node "sorted" \(Sort\): the operator "acme::Sort" is not known/,
    );
    assert.match(notes.join("\n"), /output "pieces" is left out.*is a sequence of tensors/);
    const asked = model({ loss: mse({ prediction: "boxes", target: "target" }) });
    assert.throws(() => asked.build(train(4)), { code: "UNKNOWN_OPERATOR", message: /acme::Sort/ });
  });
});

test("weights that the loss does not reach are not trained, and stay in the other outputs", () => {
  const parts: ModelParts = {
    ...linear,
    outputs: ["y", "other"],
    weights: { ...linear.weights, u: someNumbers([3, 5]) },
    nodes: [...linear.nodes, node("MatMul", ["x", "u"], ["other"])],
  };
  return withModel(parts, (model) => {
    const { graph, parameters, notes } = model().build(train(4));
    assert.deepEqual(
      parameters.map(({ name }) => name),
      ["w"],
    );
    assert.deepEqual(toNumbers(graph.constants.get("u") as Tensor), toNumbers(someNumbers([3, 5])));
    assert.match(notes.join(), /not trained, because the loss does not depend on them: u\./);
  });
});

test("other float types are converted if a dtype is given, and refused with a hint otherwise", async () => {
  for (const own of ["float16", "bfloat16", "float64"] as const) {
    const parts: ModelParts = {
      ...linear,
      inputType: own,
      weights: { w: convertTensor(someNumbers([3, 2]), own), one: scalar(own, 1) },
      nodes: [
        node("MatMul", ["x", "w"], ["m"]),
        node("Cast", ["m"], ["c"], { to: { float16: 10, bfloat16: 16, float64: 11 }[own] }),
        node("Add", ["c", "one"], ["y"]),
      ],
    };
    await withModel(parts, (model) => {
      assert.throws(() => model().build(train(2)), {
        code: "INVALID_OPTION",
        message: new RegExp(`weight "w" is ${own}.*\n.*dtype: "float32"`),
      });
      for (const dtype of ["float32", "float64"] as const) {
        const { graph, parameters, batch } = model({ dtype }).build(train(2));
        const types: DType[] = [...graph.types.values()].map((type) => type.dtype);
        assert.ok(
          types.every((type) => type === dtype || !type.includes("float")),
          types.join(),
        );
        assert.deepEqual(batch, ["x", "target"]);
        const [parameter] = parameters;
        assert.ok(parameter?.initializer.kind === "tensor");
        const w = parameter.initializer.tensor;
        assert.equal(w.dtype, dtype);
        const x = tensorFrom(dtype, [2, 3], [1, 0, 0, 0, 1, 0]);
        const { y } = interpret(graph, { x, w, target: tensorFrom(dtype, [2, 2], [0, 0, 0, 0]) });
        const expected = toNumbers(convertTensor(someNumbers([3, 2]), own)).slice(0, 4);
        for (const [i, value] of toNumbers(y as Tensor).entries()) {
          assert.ok(Math.abs(value - 1 - (expected[i] as number)) < 1e-6);
        }
      }
    });
  }
  assert.throws(() => onnx("m.onnx", { loss, dtype: "float16" as "float32" }), {
    code: "INVALID_OPTION",
  });
});

test("the first dim is the run's batch, whatever dims and shapes say; a note tells of other fixed sizes", () => {
  const parts: ModelParts = { ...linear, inputs: { x: ["batch", "length", 3] } };
  return withModel(parts, (model) => {
    const definition = model({ dims: { batch: 4, length: 5 } });
    const { notes } = definition.build(train(4));
    assert.deepEqual(notes, ["length is 5 in this run, and will be in model.onnx."]);
    assert.throws(() => definition.build(train(2)), {
      code: "INVALID_OPTION",
      message: /asks for a batch of 4, but the run's micro-batches have 2 samples/,
    });
    const { graph } = definition.build({ batch: 7, mode: "eval" });
    assert.deepEqual(graph.types.get("x")?.shape, [7, 5, 3]);
    const shaped = model({ shapes: { x: [4, 5, 3] } }).build({ batch: 7, mode: "eval" });
    assert.deepEqual(shaped.graph.types.get("x")?.shape, [7, 5, 3]);
  });
});

test("constants near the folding limit are treated alike at all sizes, so model.onnx takes any batch", () => {
  const count = 18_000;
  const parts: ModelParts = {
    ...linear,
    outputs: ["y"],
    weights: { w: someNumbers([3, 2]), long: int64(1, count), one: int64(1), none: int64(0) },
    nodes: [
      node("Shape", ["x"], ["s"], { start: 0, end: 1 }),
      node("Squeeze", ["s", "none"], ["b"]),
      node("Constant", [], ["c0"], { value: scalar("int64", 0) }),
      node("Constant", [], ["c1"], { value: scalar("int64", 1) }),
      node("Range", ["c0", "b", "c1"], ["r"]),
      node("Unsqueeze", ["r", "one"], ["rows"]),
      node("Expand", ["rows", "long"], ["wide"]),
      node("ReduceMax", ["wide"], ["at"], { axes: [1], keepdims: 0 }),
      node("MatMul", ["x", "w"], ["h"]),
      node("Gather", ["h", "at"], ["y"], { axis: 0 }),
    ],
  };
  return withModel(parts, (model) => {
    const definition = model({ trainable: /^w$/ });
    const build = (batch: number) => definition.build({ batch, mode: "eval" }).graph;
    assert.equal(toSymbolicBatch(build).fixed, undefined);
  });
});

/** Returns a file for two samples, with the given nodes between `x` (2, 3, 4) and `y`. */
function ofTwo(nodes: ModelParts["nodes"], weights: Record<string, Tensor> = {}): ModelParts {
  return {
    opset: 18,
    inputs: { x: [2, 3, 4] },
    outputs: ["y"],
    weights: { w: someNumbers([4, 4]), ...weights },
    nodes: [node("MatMul", ["x", "w"], ["h"]), ...nodes],
  };
}

test("a file for two samples computes each sample the same way at other batch sizes", async () => {
  const cases: ModelParts[] = [
    // The samples are merged and separated again, beside a dim of the same size as the batch.
    ofTwo(
      [
        node("Reshape", ["h", "flat"], ["f"]),
        node("Reshape", ["f", "heads"], ["p"]),
        node("Transpose", ["p"], ["t"], { perm: [0, 2, 1, 3] }),
        node("Reshape", ["t", "back"], ["y"]),
      ],
      { flat: int64(6, 4), heads: int64(2, 3, 2, 2), back: int64(2, -1) },
    ),
    // A value that is the same for all samples is repeated; there are also indices of samples.
    ofTwo(
      [
        node("Expand", ["token", "tokens"], ["e"]),
        node("Concat", ["e", "h"], ["c"], { axis: 1 }),
        node("GatherND", ["c", "places"], ["y"]),
      ],
      {
        token: someNumbers([1, 1, 4], 3),
        tokens: int64(2, 1, 4),
        places: tensorFrom("int64", [2, 2, 2], [0, 0, 0, 2, 1, 0, 1, 2]),
      },
    ),
    // There is a constant for each sample.
    ofTwo([node("Add", ["h", "bias"], ["y"])], {
      bias: tensorFrom("float32", [2, 1, 4], [1, 2, 3, 4, 1, 2, 3, 4]),
    }),
  ];
  for (const parts of cases) {
    await withModel(parts, (model) => {
      const definition = model({ trainable: /^(?:w|token)$/ });
      const run = (batch: number, start: number) => {
        const { graph } = definition.build({ batch, mode: "eval" });
        const all = toNumbers(someNumbers([6, 3, 4], 2)).slice(start * 12, (start + batch) * 12);
        const target = graph.types.get("target")?.shape ?? [];
        const inputs = {
          x: tensorFrom("float32", [batch, 3, 4], all),
          w: someNumbers([4, 4]),
          token: someNumbers([1, 1, 4], 3),
          bias: parts.weights?.["bias"] as Tensor,
          target: someNumbers(target),
        };
        return toNumbers(interpret(graph, inputs)["y"] as Tensor);
      };
      const whole = [0, 2, 4].flatMap((start) => run(2, start));
      assert.deepEqual(run(6, 0), whole);
      assert.deepEqual(run(1, 3), whole.slice(whole.length / 2, (whole.length * 4) / 6));
    });
  }
});

test("a graph that would mix samples keeps the file's batch, and is refused at others with advice", async () => {
  const cases: [ModelParts, RegExp][] = [
    [
      ofTwo([node("ReduceMean", ["h", "axes"], ["y"], { keepdims: 0 })], { axes: int64(0) }),
      /mixes samples/,
    ],
    [ofTwo([node("Softmax", ["h"], ["y"], { axis: 0 })]), /mixes samples/],
    [
      ofTwo([node("Add", ["h", "own"], ["y"])], { own: someNumbers([2, 1, 4]) }),
      /do not broadcast/,
    ],
    [
      ofTwo([node("ScatterND", ["h", "first", "row"], ["y"])], {
        first: tensorFrom("int64", [1, 1], [0]),
        row: someNumbers([1, 3, 4]),
      }),
      /writes at positions that do not depend on the batch/,
    ],
  ];
  for (const [parts, reason] of cases) {
    await withModel(parts, (model) => {
      const definition = model({
        loss: ({ output }) => {
          const value = output("y");
          return value.builder.one("ReduceSum", [value], { keepdims: 0 });
        },
      });
      definition.build(train(2));
      assert.throws(
        () => definition.build(train(4)),
        (error: Error) => {
          assert.match(
            error.message,
            /was exported for batches of 2 and cannot be rebuilt for other sizes/,
          );
          assert.match(error.message, reason);
          assert.match(error.message, /Train with a batch of 2 in one micro-batch/);
          return true;
        },
      );
    });
  }
});
