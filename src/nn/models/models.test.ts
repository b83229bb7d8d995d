import assert from "node:assert/strict";
import { test } from "node:test";
import { add } from "../../functional/index.ts";
import { elementCount } from "../../tensor/index.ts";
import type { Model, ModelDefinition } from "../model.ts";
import { bert } from "./bert.ts";
import { convnet } from "./convnet.ts";
import { gpt } from "./gpt.ts";
import { mlp } from "./mlp.ts";
import { pinn } from "./pinn.ts";
import { dlrm, matrixFactorization } from "./recommendation.ts";
import { resnet } from "./resnet.ts";

const count = (definition: ModelDefinition): number =>
  parameterCount(definition.build({ batch: 1, mode: "train" }));

function parameterCount(model: Model): number {
  return model.parameters.reduce((sum, { type }) => sum + elementCount(type.shape), 0);
}

test("GPT-2 small has 124,439,808 parameters, medium 354,823,168", () => {
  const size = { context: 1024, vocabulary: 50_257 };
  assert.equal(count(gpt({ layers: 12, width: 768, heads: 12, ...size })), 124_439_808);
  assert.equal(count(gpt({ layers: 24, width: 1024, heads: 16, ...size })), 354_823_168);
});

test("a Llama-like GPT: TinyLlama has 1,100,048,384 parameters", () => {
  const tiny = gpt({
    layers: 22,
    width: 2048,
    heads: 32,
    kvHeads: 4,
    context: 16,
    vocabulary: 32_000,
    hidden: 5632,
    positions: "rotary",
    activation: "swiglu",
    norm: "rms",
    tied: false,
    bias: false,
  });
  assert.equal(count(tiny), 1_100_048_384);
});

test("a GPT of Mixtral's size has 46,702,792,704 parameters", () => {
  const mixtral = gpt({
    layers: 32,
    width: 4096,
    heads: 32,
    kvHeads: 8,
    context: 4,
    vocabulary: 32_000,
    hidden: 14_336,
    positions: "rotary",
    activation: "swiglu",
    norm: "rms",
    tied: false,
    bias: false,
    experts: { count: 8, topK: 2 },
  });
  assert.equal(count(mixtral), 46_702_792_704);
});

test("ResNet-18 has 11,689,512 parameters, BERT base with its head 109,514,298", () => {
  assert.equal(count(resnet({ image: [3, 224, 224], classes: 1000 })), 11_689_512);
  const base = { layers: 12, width: 768, heads: 12, context: 512, vocabulary: 30_522 };
  assert.equal(count(bert({ ...base, segments: 2 })), 109_514_298);
});

test("other models have the computed number of parameters", () => {
  assert.equal(count(mlp({ inputs: [1, 28, 28], hidden: [128], outputs: 10 })), 101_770);
  const ratings = matrixFactorization({ users: 943, items: 1682, width: 16 });
  assert.equal(count(ratings), (943 + 1682) * 17 + 1);
  const clicks = dlrm({ dense: 3, categories: [5, 7], width: 4, bottom: [8], top: [6] });
  const bottom = 3 * 8 + 8 + 8 * 4 + 4;
  const top = (4 + 3) * 6 + 6 + 6 + 1;
  assert.equal(count(clicks), bottom + (5 + 7) * 4 + top);
});

test("a GPT's parameters have the usual names", () => {
  const model = gpt({ layers: 2, width: 8, heads: 2, context: 4 }).build({
    batch: 3,
    mode: "train",
  });
  assert.deepEqual(model.batch, ["ids", "targets"]);
  assert.deepEqual(
    model.parameters.map(({ name }) => name),
    [
      "token_embedding.weight",
      "position_embedding.weight",
      ...[0, 1].flatMap((block) =>
        [
          "norm1.weight",
          "norm1.bias",
          "attention.qkv.weight",
          "attention.qkv.bias",
          "attention.out.weight",
          "attention.out.bias",
          "norm2.weight",
          "norm2.bias",
          "feed_forward.up.weight",
          "feed_forward.up.bias",
          "feed_forward.down.weight",
          "feed_forward.down.bias",
        ].map((name) => `blocks.${block}.${name}`),
      ),
      "norm.weight",
      "norm.bias",
    ],
  );
  assert.deepEqual(
    model.parameters.filter(({ decay }) => decay).map(({ type }) => type.shape.length),
    Array.from({ length: 10 }, () => 2),
  );
  assert.deepEqual(model.graph.types.get("logits")?.shape, [3, 4, 256]);
  assert.ok(model.graph.nodes.some(({ name }) => name.startsWith("blocks.1.attention/Softmax")));
});

test("impossible options are refused with advice", () => {
  const base = { layers: 2, width: 380, heads: 6, context: 8 };
  assert.throws(() => gpt(base), {
    code: "INVALID_OPTION",
    message:
      /width of 380 does not divide into 6 heads.\n {2}Set width to a multiple of heads, such as 378/,
  });
  assert.throws(() => gpt({ ...base, width: 0 }), { message: /gpt: width is 0/ });
  assert.throws(() => gpt({ ...base, width: 384, dropout: 1 }), { message: /dropout is 1/ });
  assert.throws(() => gpt({ ...base, width: 384, kvHeads: 4 }).build({ batch: 1, mode: "eval" }), {
    message: /blocks\.0\.attention: 6 heads cannot share 4 heads/,
  });
  assert.throws(
    () =>
      gpt({ ...base, width: 18, heads: 6, positions: "rotary" }).build({ batch: 1, mode: "eval" }),
    { message: /blocks\.0\.attention: rotary positions need an even width of a head, got 3/ },
  );
  assert.throws(() => mlp({ inputs: 4, hidden: [0], outputs: 1 }), { message: /hidden\[0\] is 0/ });
  assert.throws(() => pinn({ residual: ({ u }) => u, start: { value: 1, slope: 0 }, end: 0 }), {
    message: /end is 0/,
  });
});

test("every model can be built in every float type, to train and to evaluate", () => {
  const transformer = { layers: 1, width: 8, heads: 2, context: 4 };
  const models = [
    gpt({ ...transformer, dropout: 0.1 }),
    gpt({ ...transformer, positions: "rotary", activation: "swiglu", norm: "rms", kvHeads: 1 }),
    gpt({ ...transformer, experts: { count: 3, capacity: 1, zLoss: 0.1 } }),
    gpt({ ...transformer, experts: { count: 3, topK: 1 } }),
    bert({ ...transformer, padding: 0, dropout: 0.1 }),
    mlp({ inputs: 4, hidden: [3], outputs: 2, dropout: 0.1 }),
    convnet({ image: [1, 8, 8], classes: 2 }),
    resnet({ image: [1, 8, 8], classes: 2, blocks: [1, 1], stem: "small" }),
    matrixFactorization({ users: 3, items: 3 }),
    dlrm({ dense: 2, categories: [3, 3] }),
    pinn({ residual: ({ u, ddu }) => add(u, ddu), start: { value: 1, slope: 0 } }),
  ];
  for (const definition of models) {
    for (const dtype of ["float16", "bfloat16", "float32", "float64"] as const) {
      for (const mode of ["train", "eval"] as const) {
        const model = definition.build({ batch: 2, mode, dtype });
        assert.equal(model.graph.types.get(model.loss)?.dtype, dtype, `${model.name} in ${dtype}`);
      }
    }
  }
});

test("training and evaluation have the same parameters and states", () => {
  const models = [
    resnet({ image: [1, 8, 8], classes: 2, blocks: [1, 1], stem: "small" }),
    bert({ layers: 1, width: 8, heads: 2, context: 4, dropout: 0.1 }),
    gpt({ layers: 1, width: 8, heads: 2, context: 4, experts: { count: 3, capacity: 1 } }),
  ];
  for (const definition of models) {
    const named = (mode: "train" | "eval") => {
      const { parameters, states } = definition.build({ batch: 2, mode });
      return [parameters, states.map(({ name, type }) => ({ name, type }))];
    };
    assert.deepEqual(named("eval"), named("train"));
  }
});
