/** The pass of a divided model, on the reference interpreter: what ranks make is what one process makes. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { CLASSES, checkPass, engine, exchangesOf, stepOf } from "../../test/support/pass-check.ts";
import { gpt, type ModelDefinition, resnet } from "../nn/index.ts";
import { tensor } from "./index.ts";

after(() => engine.close());

const GPT = gpt({ layers: 2, width: 24, heads: 6, context: 12, vocabulary: CLASSES });
const MODELS: Readonly<Record<string, ModelDefinition>> = {
  "a GPT": GPT,
  "a Llama": gpt({
    layers: 1,
    width: 24,
    heads: 6,
    kvHeads: 2,
    context: 12,
    vocabulary: CLASSES,
    positions: "rotary",
    activation: "swiglu",
    norm: "rms",
    tied: false,
  }),
  "a GPT with more tokens than one-hot rows are made for": gpt({
    layers: 1,
    width: 12,
    heads: 2,
    context: 8,
    vocabulary: 300,
  }),
  "a convolutional network": resnet({
    image: [3, 8, 8],
    classes: CLASSES,
    blocks: [1, 1],
    channels: [12, 24],
    stem: "small",
  }),
};

for (const [name, definition] of Object.entries(MODELS)) {
  for (const sizes of [{ tensor: 2 }, { tensor: 3 }, { tensor: 4 }, { tensor: 2, other: 2 }]) {
    test(`the pass of ${name} on ${JSON.stringify(sizes)}`, () =>
      checkPass(
        stepOf(definition),
        Object.keys(sizes).map((axis) => tensor({ axis })),
        sizes,
      ));
  }
}

/** The elements of each value, as a rank has it, that the ranks of an axis exchange in the pass. */
function exchanged(definition: ModelDefinition): number[] {
  return exchangesOf(stepOf(definition, 1), tensor(), { tensor: 2 }).map(
    ({ elements }) => elements,
  );
}

test("logits over a large vocabulary are never gathered, and no weight is", () => {
  const [context, width, vocabulary] = [128, 256, 32_000];
  const sizes = exchanged(gpt({ layers: 1, width, heads: 4, context, vocabulary }));
  assert.ok(Math.max(...sizes) <= context * width, `${Math.max(...sizes)} elements`);
});

test("each pair of products has one sum in each direction", () => {
  const layers = 6;
  const [context, width] = [256, 384];
  const sizes = exchanged(gpt({ layers, width, heads: 6, context }));
  const large = sizes.filter((size) => size >= context * width);
  // Two pairs in a layer, and what the embedding and the head take.
  assert.ok(large.length <= 4 * layers + 4, `${large.length} exchanges`);
});
