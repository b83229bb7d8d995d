/** Attention in a ring, on the reference interpreter: what ranks make, and what they send and keep. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, test } from "node:test";
import { CLASSES, checkPass, engine, exchangesOf, stepOf } from "../../test/support/pass-check.ts";
import type { Graph } from "../graph/index.ts";
import { crossEntropy, onnx } from "../import/index.ts";
import { createMesh } from "../mesh/index.ts";
import { bert, gpt, type ModelDefinition } from "../nn/index.ts";
import { cutAtExchanges, GRADIENT, passMemory, type StepGraph } from "../plan/index.ts";
import { context, tensor } from "./index.ts";
import { countRings, ringsTold } from "./rings.ts";

after(() => engine.close());

const small = { layers: 1, width: 12, heads: 2, context: 8, vocabulary: CLASSES };
const llama = {
  heads: 6,
  kvHeads: 2,
  positions: "rotary",
  activation: "swiglu",
  norm: "rms",
  tied: false,
} as const;
const encoder = join(import.meta.dirname, "../../../test/onnx/fixtures/encoder-17.onnx");
const MODELS: Readonly<Record<string, ModelDefinition>> = {
  "a GPT with blocks of queries": gpt({ ...small, queryBlock: 4 }),
  "a Llama with blocks of queries": gpt({ ...small, ...llama, queryBlock: 3 }),
  "a BERT with padding": bert({ ...small, vocabulary: CLASSES + 1, padding: 1 }),
  "an encoder from PyTorch": onnx(encoder, {
    dims: { length: 8 },
    loss: crossEntropy({ logits: "output", labels: "labels" }),
  }),
};

function ringsIn(step: StepGraph): number {
  return countRings(step.graphs.get(GRADIENT) as Graph);
}

for (const [name, definition] of Object.entries(MODELS)) {
  test(`keys and values of ${name} go round 2 and 4 ranks`, () => {
    const step = stepOf(definition, 2, 2, "ring");
    assert.equal(ringsIn(step), 1);
    for (const ranks of [2, 4]) checkPass(step, [context()], { context: ranks });
  });
}

test("ranks that divide heads as well each send round what they have of keys", () => {
  const step = stepOf(MODELS["a GPT with blocks of queries"] as ModelDefinition, 2, 2, "ring");
  checkPass(step, [context(), tensor()], { context: 2, tensor: 2 });
});

test("a rank gives its part to the next one, keeps no scores, and has no whole keys", () => {
  const [width, length] = [128, 1024];
  const definition = gpt({ layers: 2, width, heads: 4, context: length, vocabulary: CLASSES });
  const ring = stepOf(definition, 1, 1, "ring");
  const written = stepOf(definition, 1, 1);
  for (const ranks of [2, 4]) {
    const sent = exchangesOf(ring, context(), { context: ranks });
    assert.ok(sent.every(({ op }) => op === "Shift"));
    // Keys and values in each round, with their gradients in the backward pass, which come home.
    assert.equal(sent.length, 2 * (2 * (ranks - 1) + (ranks - 1) + 2));
    assert.ok(sent.every(({ elements }) => elements <= (4 * length * width) / ranks));
    const [own, other] = [ring, written].map((step) => {
      const { between, within } = passMemory(
        cutAtExchanges(context().rewrite(step, createMesh({ context: ranks }))),
      );
      return between + within;
    }) as [number, number];
    assert.ok(own < 0.75 * other, `${own} bytes, and ${other} in the other way`);
  }
});

test("what has no form that goes round stays as it is, and a sentence says so", () => {
  const step = stepOf(gpt({ ...small, dropout: 0.1 }), 2, 2, "ring");
  assert.equal(ringsIn(step), 0);
  assert.match(ringsTold(step, "ring", 2).join(" "), /no attention.*1 softmax of the model is not/);
  assert.match(ringsTold(step, "ring", 1).join(" "), /because no workers divide sequences/);
  checkPass(step, [context()], { context: 2 });
});
