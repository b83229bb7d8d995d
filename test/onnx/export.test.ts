/**
 * Models of the library, exported for any batch size, compared in plain ONNX Runtime with the graph
 * of that very size.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as ort from "onnxruntime-node";
import { reduceSum } from "../../src/functional/index.ts";
import { typeOf } from "../../src/graph/index.ts";
import { importGraph, toSymbolicBatch } from "../../src/import/index.ts";
import {
  bert,
  convnet,
  defineModel,
  dlrm,
  gpt,
  gru,
  lstm,
  type Model,
  type ModelDefinition,
  matrixFactorization,
  mlp,
  resnet,
  rnn,
} from "../../src/nn/index.ts";
import { decodeModel, encodeModel } from "../../src/onnx/index.ts";
import { bindWeights, forwardGraph } from "../../src/run/forward.ts";
import { type Tensor, tensorFrom } from "../../src/tensor/index.ts";

const small = { layers: 1, width: 16, heads: 2, context: 8, vocabulary: 30 } as const;

const MODELS: Readonly<Record<string, ModelDefinition>> = {
  gpt: gpt(small),
  "gpt, modern": gpt({
    ...small,
    kvHeads: 1,
    positions: "rotary",
    norm: "rms",
    activation: "swiglu",
  }),
  bert: bert(small),
  mlp: mlp({ inputs: [2, 3], hidden: [8], outputs: 3, dropout: 0.1 }),
  convnet: convnet({ image: [1, 12, 12], classes: 4, channels: [4, 4], hidden: 8 }),
  resnet: resnet({ image: [3, 8, 8], classes: 4, blocks: [1, 1], channels: [4, 8] }),
  matrixFactorization: matrixFactorization({ users: 20, items: 30, width: 4 }),
  recurrent: defineModel("recurrent", (m) => {
    const x = m.input("x", [m.batch, 5, 3]);
    const lengths = m.input("lengths", [m.batch], "int32");
    const options = { hidden: 4, layers: 2, bidirectional: true };
    const { y, c } = lstm(m.child("lstm"), x, options);
    const { h } = gru(m.child("gru"), y, { hidden: 4, lengths });
    const loss = reduceSum(h, { keepdims: false });
    return { loss, y, c, last: rnn(m.child("rnn"), y, { hidden: 2 }).h };
  }),
  dlrm: dlrm({ dense: 4, categories: [20, 30], width: 4, bottom: [8], top: [8] }),
};

function numbers(count: number, value: (i: number) => number): number[] {
  return Array.from({ length: count }, (_, i) => value(i));
}

/** Returns weights that depend on their index only. */
function weightsOf(model: Model): Record<string, Tensor> {
  return Object.fromEntries(
    [...model.parameters, ...model.states].map(({ name, type }) => {
      const count = type.shape.reduce((product, size) => product * size, 1);
      return [
        name,
        tensorFrom(
          type.dtype,
          type.shape,
          // Variances must be above zero; matrices around it keep the numbers small.
          numbers(count, (i) => (type.shape.length > 1 ? 0 : 0.5) + 0.3 * Math.sin(i * 1.7)),
        ),
      ];
    }),
  );
}

for (const [name, definition] of Object.entries(MODELS)) {
  test(`${name} is exported for any batch size`, async () => {
    const weights = weightsOf(definition.build({ batch: 1, mode: "eval" }));
    const build = (batch: number) =>
      bindWeights(forwardGraph(definition.build({ batch, mode: "eval" })), weights);
    const symbolic = toSymbolicBatch(build);
    assert.equal(symbolic.fixed, undefined);
    const bytes = encodeModel(symbolic.graph, symbolic.encode);
    const session = await ort.InferenceSession.create(bytes);
    for (const batch of [1, 2, 5]) {
      const fixed = build(batch);
      const feeds = Object.fromEntries(
        fixed.inputs.map((input) => {
          const { dtype, shape } = typeOf(fixed, input);
          const count = shape.reduce((product, size) => product * size, 1);
          const tensor =
            dtype === "int32"
              ? new ort.Tensor(
                  "int32",
                  numbers(count, (i) => (i * 7) % 19),
                  shape,
                )
              : new ort.Tensor(
                  "float32",
                  numbers(count, (i) => Math.sin(i)),
                  shape,
                );
          return [input, tensor];
        }),
      );
      const other = await ort.InferenceSession.create(encodeModel(fixed));
      // The exported model can be read again, bound to this size.
      const again = importGraph(decodeModel(bytes), { dims: { batch } }).graph;
      assert.ok(!again.nodes.some(({ op }) => op === "Shape"));
      const third = await ort.InferenceSession.create(encodeModel(again));
      const want = await other.run(feeds);
      for (const got of [await session.run(feeds), await third.run(feeds)]) {
        compare(got, want, fixed.outputs, batch);
      }
    }
  });
}

function compare(
  got: ort.InferenceSession.ReturnType,
  want: ort.InferenceSession.ReturnType,
  outputs: readonly string[],
  batch: number,
): void {
  for (const output of outputs) {
    assert.deepEqual(got[output]?.dims, want[output]?.dims);
    const expected = want[output]?.data as Float32Array;
    const values = got[output]?.data;
    assert.ok(values instanceof Float32Array);
    for (const [i, value] of values.entries()) {
      const target = expected[i] ?? Number.NaN;
      const error = Math.abs(value - target) / Math.max(1, Math.abs(target));
      assert.ok(error <= 5e-5, `${output}[${i}] at batch ${batch}: ${value}, not ${target}`);
    }
  }
}
