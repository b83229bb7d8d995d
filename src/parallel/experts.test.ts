/** The pass of a model whose experts ranks share, on the reference interpreter, and what is sent. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { CLASSES, checkPass, engine, exchangesOf, stepOf } from "../../test/support/pass-check.ts";
import { type GptExperts, gpt, type ModelDefinition } from "../nn/index.ts";
import { experts, tensor } from "./index.ts";

after(() => engine.close());

const SMALL = { layers: 1, width: 24, heads: 6, context: 12, vocabulary: CLASSES };
const MODELS: Readonly<Record<string, ModelDefinition>> = {
  "a capacity and a topK of 1": gpt({ ...SMALL, experts: { count: 4, topK: 1, capacity: 1 } }),
  "a capacity and a topK of 2": gpt({
    ...SMALL,
    activation: "swiglu",
    dropout: 0.1,
    experts: { count: 4, capacity: 1.25, zLoss: 1e-3 },
  }),
  "a topK of 1": gpt({ ...SMALL, experts: { count: 4, topK: 1 } }),
  "a topK of 2": gpt({ ...SMALL, tied: false, experts: { count: 4 } }),
};

for (const [name, definition] of Object.entries(MODELS)) {
  for (const ranks of name.includes("topK of 2") ? [2, 4] : [4]) {
    test(`the pass of experts with ${name} on ${ranks} ranks`, () =>
      checkPass(stepOf(definition, 4), [experts()], { expert: ranks }));
  }
}

test("experts and matrices are divided at once", () =>
  checkPass(
    stepOf(MODELS["a capacity and a topK of 2"] as ModelDefinition),
    [experts(), tensor()],
    {
      expert: 2,
      tensor: 2,
    },
  ));

const [layers, width, length] = [2, 64, 32];
const opsOf = (own: GptExperts | undefined, ranks: number, batch = 4) =>
  exchangesOf(
    stepOf(gpt({ layers, width, heads: 4, context: length, ...(own && { experts: own }) }), batch),
    experts(),
    { expert: ranks },
  );

test("with a capacity, tokens go to their experts and back, and so do their gradients", () => {
  const found = opsOf({ count: 4, topK: 2, capacity: 1 }, 2);
  assert.deepEqual(
    found.map(({ op }) => op),
    new Array(4 * layers).fill("AllToAll"),
  );
  // A rank has the tokens of two samples, each twice.
  assert.ok(found.every(({ elements }) => elements === 2 * 2 * length * width));
});

test("without one, experts are given all tokens, and no matrices", () => {
  const found = opsOf({ count: 4 }, 2);
  assert.ok(found.length <= 4 * layers, `${found.length} exchanges`);
  const tokens = 4 * length * width;
  for (const { op, elements } of found) {
    assert.ok(elements <= (op === "AllToAll" ? 2 * tokens : tokens), `${op} of ${elements}`);
  }
});

test("what experts cannot be shared by is refused in a sentence", () => {
  const refused = (why: RegExp, ...of: Parameters<typeof opsOf>) =>
    assert.throws(() => opsOf(...of), { code: "INVALID_OPTION", message: why });
  refused(/expert 2 divides experts, which this model does not have/, undefined, 2);
  refused(/cannot share 6 experts \("blocks\.0\..*up\.weight"\) evenly/, { count: 6 }, 4);
  refused(/cannot share the 3 samples of a micro-batch \("ids"\) evenly/, { count: 4 }, 2, 3);
  refused(/expert 2 does not go together/, { count: 4, balanceOver: "batch" }, 2);
});
