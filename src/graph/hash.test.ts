import assert from "node:assert/strict";
import { test } from "node:test";
import { type Tensor, tensorFrom } from "../tensor/index.ts";
import type { Attributes, Graph } from "./graph.ts";
import { hashGraph } from "./hash.ts";

interface Options {
  readonly prefix?: string;
  readonly op?: string;
  readonly attributes?: Attributes;
  readonly weight?: Tensor;
  readonly swap?: boolean;
  readonly size?: number;
  readonly outputs?: readonly ("h" | "y")[];
}

function sample(options: Options = {}): Graph {
  const { prefix = "", size = 2, outputs = ["y"] } = options;
  const n = (name: string) => `${prefix}${name}`;
  const type = { dtype: "float32", shape: [size] } as const;
  const inputs = [n("x"), n("w")];
  return {
    name: n("graph"),
    inputs: [n("x")],
    outputs: outputs.map(n),
    constants: new Map([[n("w"), options.weight ?? tensorFrom("float32", [2], [1, 2])]]),
    types: new Map(["x", "w", "h", "y"].map((name) => [n(name), type])),
    nodes: [
      {
        op: options.op ?? "Add",
        name: n("add"),
        inputs: options.swap === true ? inputs.toReversed() : inputs,
        outputs: [n("h")],
        attributes: {},
      },
      {
        op: "LeakyRelu",
        name: n("relu"),
        inputs: [n("h")],
        outputs: [n("y")],
        attributes: options.attributes ?? { alpha: { kind: "float", value: 0.5 } },
      },
    ],
  };
}

test("names do not change the hash", () => {
  assert.equal(hashGraph(sample()), hashGraph(sample({ prefix: "layer.7/" })));
});

test("constants with equal contents have equal hashes", () => {
  const weight = tensorFrom("float32", [2], [1, 2]);
  assert.equal(hashGraph(sample()), hashGraph(sample({ weight })));
});

test("everything but names changes the hash", () => {
  const variants: Options[] = [
    {},
    { op: "Mul" },
    { attributes: { alpha: { kind: "float", value: 0.25 } } },
    { attributes: { alpha: { kind: "int", value: 1 } } },
    { attributes: { alpha: { kind: "float", value: 1 } } },
    { attributes: { alpha: { kind: "float", value: 0 } } },
    { attributes: { alpha: { kind: "float", value: -0 } } },
    { attributes: { beta: { kind: "float", value: 0.5 } } },
    { attributes: {} },
    { weight: tensorFrom("float32", [2], [1, 3]) },
    { weight: tensorFrom("int32", [2], [1, 2]) },
    { swap: true },
    { size: 3 },
    { outputs: ["h"] },
    { outputs: ["h", "y"] },
    { outputs: ["y", "h"] },
  ];
  const hashes = variants.map((options) => hashGraph(sample(options)));
  assert.equal(new Set(hashes).size, variants.length);
});
