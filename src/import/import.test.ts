import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeModel } from "../onnx/read.ts";
import type { RawFunction } from "../onnx/schema.ts";
import { interpret } from "../reference/index.ts";
import { scalar, type Tensor, tensorFrom, toNumbers } from "../tensor/index.ts";
import { type ImportOptions, importGraph } from "./import.ts";
import { attribute, graphOf, type ModelParts, modelOf, node } from "./raw.testing.ts";

const load = (parts: ModelParts, options: ImportOptions = {}) =>
  importGraph(decodeModel(modelOf(parts), { name: "test.onnx" }), options);
const floats = (...values: number[]) => tensorFrom("float32", [values.length], values);

function refusal(parts: ModelParts, code: string, message: RegExp, options?: ImportOptions): void {
  assert.throws(() => load(parts, options), { name: "LockstepError", code, message });
}

test("an unsupported node is refused with operator, node and file", () => {
  const inputs = { x: [2, 3] };
  const with1 = (...nodes: ModelParts["nodes"]): ModelParts => ({
    opset: 17,
    inputs,
    outputs: ["y"],
    nodes,
  });
  refusal(
    with1(node("NonMaxSuppression", ["x"], ["y"])),
    "UNKNOWN_OPERATOR",
    /^test\.onnx: node "y" \(NonMaxSuppression\): the operator "NonMaxSuppression" is not known\.\n {2}Rewrite/,
  );
  refusal(
    with1(node("acme::Secret", ["x"], ["y"])),
    "UNKNOWN_OPERATOR",
    /the operator "acme::Secret" is not known/,
  );
  refusal(
    with1(node("Relu", ["x"], ["y"], { acme: 1 })),
    "ONNX_UNSUPPORTED",
    /node "y" \(Relu\): attribute "acme" of Relu is not supported/,
  );
  refusal(
    with1(node("Relu", ["absent"], ["y"])),
    "ONNX_UNSUPPORTED",
    /reads "absent", which no node before it computes/,
  );
  refusal(
    with1(node("MatMul", ["x", "x"], ["y"])),
    "SHAPE_MISMATCH",
    /^test\.onnx: node "y" \(MatMul\): .*float32\[2, 3\]/,
  );
  refusal(
    with1(node("NonZero", ["x"], ["y"])),
    "ONNX_UNSUPPORTED",
    /the shape of its result depends on data\.\n {2}Export the model with boolean masks/,
  );
  const body = graphOf({ outputs: ["b"], nodes: [node("Identity", ["x"], ["b"])] });
  refusal(
    with1(
      node("ReduceMax", ["x"], ["m"], { keepdims: 0 }),
      node("Cast", ["m"], ["c"], { to: 9 }),
      node("If", ["c"], ["y"], { then_branch: body, else_branch: body }),
    ),
    "ONNX_UNSUPPORTED",
    /node "y" \(If\): the condition of If is not known/,
  );
  refusal(
    with1(node("SequenceMap", ["x"], ["y"], { body })),
    "ONNX_UNSUPPORTED",
    /SequenceMap with a subgraph/,
  );
  refusal({ ...with1(), opset: 99 }, "ONNX_UNSUPPORTED", /operator set 99; 7 to 26/);
  refusal(with1(), "ONNX_PARSE", /no node computes the output "y"/);
});

test("a name that two values have is refused, in functions, branches and loops too", () => {
  const says = /^test\.onnx is not a valid ONNX file: two of its values are named "a"\./;
  const parts = { opset: 17, inputs: { x: [2] }, outputs: ["y"] };
  const relu = (from: string, to: string) => node("Relu", [from], [to]);
  const refused = (more: Partial<ModelParts>) =>
    refusal({ ...parts, nodes: [relu("x", "y")], ...more }, "ONNX_PARSE", says);
  const last = relu("a", "y");
  // PyTorch's newer exporter writes such files for parameters that are called as operators are.
  refused({ weights: { a: floats(1, 2) }, nodes: [node("Tanh", ["x"], ["a"]), last] });
  refused({ nodes: [relu("x", "a"), node("Tanh", ["x"], ["a"]), last] });
  refused({ inputs: { a: [2] }, nodes: [relu("a", "a"), last] });
  refused({ nodes: [node("Split", ["x"], ["a", "a"]), last] });
  const body = graphOf({ outputs: ["b"], nodes: [relu("x", "a"), relu("a", "a"), relu("a", "b")] });
  refused({ nodes: [node("Loop", ["", "", "x"], ["y"], { body })] });
  const twice = { ...shifted(), node: [relu("a", "a"), relu("a", "r")] };
  refused({ functions: [twice], domains: ["acme"], nodes: [node("acme::Shifted", ["x"], ["y"])] });
  // Weights that are also inputs, and outputs that are left out, are no such names.
  const both = { inputs: { x: [2], w: [2] }, weights: { w: floats(1, 2) } };
  load({ ...parts, ...both, nodes: [node("Mul", ["x", "w"], ["y"])] });
  load({ ...parts, nodes: [node("Split", ["x"], ["y", ""]), relu("x", "z")] });
});

test("dims are bound by name, by batch, or by whole shapes", () => {
  const parts: ModelParts = {
    opset: 17,
    inputs: { x: ["batch", "length", 3] },
    outputs: ["y"],
    nodes: [node("Relu", ["x"], ["y"])],
  };
  const shape = (options: ImportOptions) => load(parts, options).graph.types.get("y")?.shape;
  assert.deepEqual(shape({ dims: { batch: 2, length: 5 } }), [2, 5, 3]);
  assert.deepEqual(shape({ batch: 4, dims: { length: 5 } }), [4, 5, 3]);
  assert.deepEqual(shape({ shapes: { x: [1, 2, 3] } }), [1, 2, 3]);
  refusal(
    parts,
    "INVALID_OPTION",
    /input "x" has dims without a size: length\.\n {2}Shapes are static: give dims: \{ "length": … \}/,
    { batch: 3 },
  );
  refusal(parts, "INVALID_OPTION", /cannot have the shape \[0, 5, 3\]/, {
    dims: { batch: 0, length: 5 },
  });
});

test("trained weights become inputs, and the others stay constants", () => {
  const weights: Record<string, Tensor> = {
    "body.w": floats(1, 2),
    "head.w": floats(3, 4),
    "head.scale": scalar("float32", 2),
    "head.table": tensorFrom("int64", [2], [1, 0]),
  };
  const parts: ModelParts = {
    opset: 17,
    inputs: { x: [2] },
    weights,
    outputs: ["y"],
    nodes: [
      node("Mul", ["x", "body.w"], ["a"]),
      node("Mul", ["a", "head.w"], ["b"]),
      node("Mul", ["b", "head.scale"], ["c"]),
      node("Gather", ["c", "head.table"], ["y"]),
    ],
  };
  const names = (trainable: ImportOptions["trainable"]) => {
    const { graph, parameters } = load(parts, trainable === undefined ? {} : { trainable });
    assert.deepEqual(graph.inputs, ["x", ...parameters.keys()]);
    return [...parameters.keys()];
  };
  assert.deepEqual(names(undefined), []);
  assert.deepEqual(names(/^head\./g), ["head.w", "head.scale"]);
  assert.deepEqual(names(true), ["body.w", "head.w", "head.scale"]);
  assert.deepEqual(
    names((name) => name.startsWith("body")),
    ["body.w"],
  );
});

test("weights that an exporter merged because they were equal are trained separately, and tied ones stay tied", () => {
  const parts: ModelParts = {
    opset: 17,
    inputs: { x: [2] },
    weights: { "norm1.scale": floats(1, 1), "table.w": floats(1, 2) },
    outputs: ["y"],
    nodes: [
      node("Identity", ["norm1.scale"], ["norm2.scale"]),
      node("Identity", ["table.w"], ["head.w"]),
      node("Mul", ["x", "norm1.scale"], ["a"]),
      node("Mul", ["a", "norm2.scale"], ["b"]),
      node("Mul", ["b", "table.w"], ["c"]),
      node("Mul", ["c", "head.w"], ["y"]),
    ],
  };
  const { graph, parameters } = load(parts, { trainable: true });
  assert.deepEqual([...parameters.keys()], ["norm1.scale", "norm2.scale", "table.w"]);
  assert.deepEqual(
    graph.nodes.map(({ inputs }) => inputs[1]),
    ["norm1.scale", "norm2.scale", "table.w", "table.w"],
  );
});

function shifted(): RawFunction {
  const ref = attribute("value", undefined, "shift");
  return {
    name: "Shifted",
    domain: "acme",
    overload: "",
    input: ["a", "scale"],
    output: ["r"],
    attribute: ["shift"],
    attributeProto: [],
    node: [
      { ...node("Constant", [], ["s"]), attribute: [{ ...ref, name: "value_float" }] },
      node("Add", ["a", "s"], ["t"]),
      node("Clip", ["t", "", "scale"], ["r"]),
    ],
    opsetImport: [{ domain: "", version: 17 }],
    docString: "",
  };
}

test("functions are inlined, with their attributes and omitted inputs", () => {
  const { graph } = load({
    opset: 17,
    domains: ["acme"],
    functions: [shifted()],
    inputs: { x: [3] },
    weights: { most: scalar("float32", 5) },
    outputs: ["y"],
    nodes: [
      node("acme::Shifted", ["x", "most"], ["h"], { shift: { float: 2 } }),
      node("acme::Shifted", ["h"], ["y"], { shift: { float: 10 } }),
    ],
  });
  const { y } = interpret(graph, { x: floats(1, 2, 9) });
  assert.deepEqual(toNumbers(y as Tensor), [13, 14, 15]);
  assert.ok(graph.nodes.some(({ name }) => name.startsWith("h/")));
});

test("a function that calls itself is refused", () => {
  const own = { ...shifted(), node: [node("acme::Shifted", ["a"], ["r"])] };
  refusal(
    {
      opset: 17,
      domains: ["acme"],
      functions: [own],
      inputs: { x: [3] },
      outputs: ["y"],
      nodes: [node("acme::Shifted", ["x"], ["y"])],
    },
    "ONNX_UNSUPPORTED",
    /call each other without end/,
  );
});

test("an output that is a constant, an input or listed twice keeps its name", () => {
  const { graph } = load({
    opset: 17,
    inputs: { x: [2] },
    weights: { w: floats(1, 2) },
    outputs: ["same", "again", "shape", "y"],
    nodes: [
      node("Identity", ["x"], ["same"]),
      node("Identity", ["x"], ["again"]),
      node("Shape", ["x"], ["shape"]),
      node("Add", ["x", "w"], ["y"]),
    ],
  });
  assert.deepEqual(graph.outputs, ["same", "again", "shape", "y"]);
  const got = interpret(graph, { x: floats(3, 4) });
  assert.deepEqual(toNumbers(got["again"] as Tensor), [3, 4]);
  assert.deepEqual(toNumbers(got["shape"] as Tensor), [2]);
});
