import assert from "node:assert/strict";
import { test } from "node:test";
import { add, mul, reduceSum } from "../functional/index.ts";
import { interpret } from "../reference/index.ts";
import { type Tensor, tensorFrom, toNumbers } from "../tensor/index.ts";
import { defineModel } from "./define.ts";

const running = defineModel("running", (m) => {
  const x = m.input("x", [m.batch, 3]);
  const layer = m.child("layers").child(2);
  return layer.within(() => {
    const weight = layer.parameter("weight", [3], { kind: "ones" });
    const count = layer.state("count", [], { kind: "zeros" });
    if (m.mode === "train") count.update(add(count.value, 1));
    const scaled = mul(x, weight);
    return { loss: reduceSum(scaled, { keepdims: false }), scaled };
  });
});

test("a model lists its inputs and outputs under readable names", () => {
  const model = running.build({ batch: 4, mode: "train" });
  assert.deepEqual(model.batch, ["x"]);
  assert.deepEqual(
    model.parameters.map(({ name, decay }) => [name, decay]),
    [["layers.2.weight", false]],
  );
  assert.deepEqual(
    model.states.map(({ name, next }) => [name, next]),
    [["layers.2.count", "layers.2.count.next"]],
  );
  assert.deepEqual(model.graph.outputs, ["loss", "scaled", "layers.2.count.next"]);
  assert.deepEqual(model.graph.inputs, ["x", "layers.2.weight", "layers.2.count"]);
  assert.ok(model.graph.nodes.some(({ name }) => name.startsWith("layers.2/Mul")));
  assert.equal(model.randomKey, undefined);
  assert.equal(model.graph.types.get("layers.2.weight")?.dtype, "float32");
});

test("parameters have the element type of the build, and states do not change in eval mode", () => {
  const model = running.build({ batch: 1, mode: "eval", dtype: "float64" });
  assert.equal(model.graph.types.get("layers.2.weight")?.dtype, "float64");
  const next = model.graph.nodes.find(({ outputs }) => outputs.includes("layers.2.count.next"));
  assert.deepEqual(next?.inputs, ["layers.2.count"]);
});

test("the random key is an input only if a layer draws from it", () => {
  const model = defineModel("random", (m) => {
    const x = m.input("x", [m.batch]);
    assert.equal(m.key.dtype, "int32");
    assert.notEqual(m.nextStream(), m.nextStream());
    return { loss: reduceSum(x, { keepdims: false }) };
  }).build({ batch: 2, mode: "train" });
  assert.equal(model.randomKey, "random_key");
  assert.deepEqual(model.batch, ["x"]);
});

test("what layers add to the loss is in training only, and their measures are means", () => {
  const body: Parameters<typeof defineModel>[1] = (m) => {
    const x = m.input("x", [m.batch]);
    const sum = reduceSum(x, { keepdims: false });
    for (const factor of [1, 3]) {
      const layer = m.child(`part${factor}`);
      layer.addLoss(mul(sum, factor * 10));
      layer.addMeasure("size", mul(sum, factor));
    }
    return { loss: sum };
  };
  const definition = defineModel("sums", body);
  const x = tensorFrom("float32", [2], [1, 1]);
  const numbers = (mode: "train" | "eval") => {
    const { graph, outputs } = definition.build({ batch: 2, mode });
    assert.deepEqual(outputs, { size: "size" });
    const found = interpret(graph, { x });
    return ["loss", "size"].map((name) => toNumbers(found[name] as Tensor)[0]);
  };
  assert.deepEqual(numbers("train"), [2 + 20 + 60, 4]);
  assert.deepEqual(numbers("eval"), [2, 4]);
  const twice = defineModel("twice", (m) => ({ ...body(m), size: m.builder.value("x") }));
  assert.throws(() => twice.build({ batch: 2, mode: "train" }), /"size" is also a measure/);
  const wide = defineModel("wide", (m) => {
    const y = m.input("x", [m.batch]);
    m.child("part").addLoss(y);
    return { loss: reduceSum(y, { keepdims: false }) };
  });
  assert.throws(() => wide.build({ batch: 2, mode: "train" }), {
    message: /^part: what is added to the loss must be one float, got float32\[2\]/,
  });
});

test("mistakes are reported with the layer", () => {
  const broken = (body: Parameters<typeof defineModel>[1]) => () =>
    defineModel("broken", body).build({ batch: 2, mode: "train" });
  assert.throws(
    broken((m) => m.child("blocks.3").fail("expected width 384, got 380", "Set width to …")),
    { code: "INVALID_OPTION", message: /^blocks\.3: expected width 384, got 380\.\n {2}Set width/ },
  );
  assert.throws(
    broken((m) => ({ loss: m.input("x", [3]) })),
    { code: "INVALID_OPTION", message: /"x" has shape \[3\].*must be the batch \(2\)/ },
  );
  assert.throws(
    broken((m) => ({ loss: m.input("x", [2]) })),
    { code: "SHAPE_MISMATCH", message: /the loss must be one float, got float32\[2\]/ },
  );
  assert.throws(
    broken((m) => ({ loss: m.child("a").parameter("w", [0], { kind: "zeros" }) })),
    { code: "INVALID_OPTION", message: /^a: "a\.w" would have shape \[0\]/ },
  );
  assert.throws(
    broken((m) => {
      m.parameter("w", [2], { kind: "zeros" });
      return { loss: m.parameter("w", [2], { kind: "zeros" }) };
    }),
    { code: "INVALID_GRAPH", message: /two values named "w"/ },
  );
  assert.throws(
    broken((m) => {
      const x = m.input("x", [2, 3]);
      return m.child("a").within(() => ({ loss: add(x, m.parameter("w", [2], { kind: "ones" })) }));
    }),
    { message: /^a: Add/ },
  );
  for (const batch of [0, 1.5, Number.NaN]) {
    assert.throws(() => running.build({ batch, mode: "train" }), { code: "INVALID_OPTION" });
  }
  assert.throws(() => running.build({ batch: 1, mode: "train", dtype: "int32" }), {
    code: "INVALID_OPTION",
  });
});
