/** The pass of a model whose sequences ranks divide, on the reference interpreter, and what is sent. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { CLASSES, checkPass, engine, exchangesOf, stepOf } from "../../test/support/pass-check.ts";
import { createMesh } from "../mesh/index.ts";
import { bert, dlrm, gpt, type ModelDefinition, resnet } from "../nn/index.ts";
import { cutAtExchanges, passMemory } from "../plan/index.ts";
import { context, tensor } from "./index.ts";

after(() => engine.close());

const small = { width: 24, heads: 6, context: 12, vocabulary: CLASSES };
const llama = {
  kvHeads: 2,
  positions: "rotary",
  activation: "swiglu",
  norm: "rms",
  tied: false,
} as const;
const MODELS: Readonly<Record<string, ModelDefinition>> = {
  "a GPT": gpt({ ...small, layers: 2 }),
  "a Llama": gpt({ ...small, ...llama, layers: 1 }),
  "a GPT with dropout": gpt({ ...small, layers: 1, dropout: 0.1 }),
  "a Llama with blocks of queries": gpt({
    ...small,
    ...llama,
    layers: 1,
    context: 24,
    queryBlock: 12,
  }),
  "a GPT with more tokens than one-hot rows are made for": gpt({
    layers: 1,
    width: 12,
    heads: 2,
    context: 12,
    vocabulary: 300,
  }),
  BERT: bert({
    layers: 1,
    width: 24,
    heads: 2,
    context: 12,
    vocabulary: CLASSES + 1,
    dropout: 0.1,
  }),
};

for (const [name, definition] of Object.entries(MODELS)) {
  for (const ranks of [2, 3, 4]) {
    test(`the pass of ${name} on ${ranks} parts of each sequence`, () =>
      checkPass(stepOf(definition), [context()], { context: ranks }));
  }
}

test("sequences and matrices are divided at once, and a batch may be one sequence", () => {
  const step = stepOf(MODELS["a GPT"] as ModelDefinition);
  checkPass(step, [context(), tensor()], { context: 2, tensor: 2 });
  checkPass(stepOf(MODELS["a Llama"] as ModelDefinition, 1, 1), [context()], { context: 2 });
});

const [layers, width, length] = [3, 128, 512];
const long = { layers, width, context: length };
const opsOf = (definition: ModelDefinition, ranks: number, batch = 1) =>
  exchangesOf(stepOf(definition, batch), context(), { context: ranks });

test("where there are heads for all, attention is computed by heads: four exchanges in a layer", () => {
  const found = opsOf(gpt({ ...long, heads: 4, queryBlock: length }), 2);
  assert.ok(found.length <= 4 * layers, `${found.length} exchanges`);
  assert.ok(found.every(({ op, elements }) => op === "AllToAll" && elements <= 3 * length * width));
});

test("else keys and values are brought together, whole and once, also for blocks of queries", () => {
  for (const queryBlock of [length, 128]) {
    const found = opsOf(gpt({ ...long, heads: 4, queryBlock }), 8);
    const count = (op: string) => found.filter((own) => own.op === op).length;
    assert.ok(found.length <= 4 * layers, `${found.length} exchanges`);
    assert.equal(count("AllGather") + count("ReduceScatter"), found.length);
    assert.ok(count("AllGather") <= 2 * layers && count("ReduceScatter") <= 2 * layers);
    assert.ok(found.every(({ elements }) => elements <= 3 * length * width));
  }
});

test("fewer heads of keys and values are what is brought together", () => {
  const found = opsOf(gpt({ ...long, ...llama, heads: 8 }), 4);
  assert.ok(found.every(({ elements }) => elements <= length * (width / 8) * 2));
  assert.ok(found.length <= 4 * layers, `${found.length} exchanges`);
});

test("no gradient of a parameter is exchanged in a pass", () => {
  // Of a table this large, a sum would be the largest exchange.
  const found = opsOf(gpt({ layers: 1, width, heads: 4, context: 64, vocabulary: 4000 }), 2, 2);
  assert.ok(found.every(({ elements }) => elements <= 2 * 3 * 64 * width));
});

test("the activations of a rank are about its part of those of one process", () => {
  for (const ranks of [2, 4]) {
    const step = stepOf(gpt({ ...long, heads: 4 }), 1);
    const divided = context().rewrite(step, createMesh({ context: ranks }));
    const [whole, part] = [step, cutAtExchanges(divided)].map(passMemory).map((memory) => {
      return memory.between + memory.within;
    }) as [number, number];
    assert.ok(part < (1.1 / ranks) * whole, `${part} of ${whole} bytes with ${ranks} ranks`);
  }
});

test("samples are not divided instead of sequences", () => {
  // Two samples on two ranks would need no exchange at all.
  assert.ok(opsOf(gpt({ ...long, heads: 4, queryBlock: length }), 2, 2).length >= layers);
});

test("what has no sequences is refused, and so is a length that does not divide", () => {
  const refused = (definition: ModelDefinition, ranks: number, why: RegExp) =>
    assert.throws(() => opsOf(definition, ranks), why);
  refused(gpt({ ...long, heads: 4 }), 3, /context 3 cannot cut sequences of 512 tokens evenly/);
  const images = resnet({
    image: [3, 8, 8],
    classes: 4,
    blocks: [1],
    channels: [8],
    stem: "small",
  });
  refused(
    images,
    2,
    /which the batches of this run do not have \("image" float32 \(batch, 3, 8, 8\)/,
  );
  const table = dlrm({ dense: 4, categories: [8, 8, 8, 8] });
  refused(table, 2, /finds no sequences in this model: workers would share \d+% of the work/);
});
