/**
 * Models with mixtures of experts in training: they learn, their objective does not depend on how a
 * batch is divided, and ranks end with the bits of one process.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import * as ort from "onnxruntime-node";
import { differentiate } from "../src/autodiff/index.ts";
import { createOrtEngine } from "../src/engine/index.ts";
import { toSymbolicBatch } from "../src/import/index.ts";
import { type GptExperts, gpt, type ModelDefinition } from "../src/nn/index.ts";
import { encodeModel } from "../src/onnx/index.ts";
import { interpret } from "../src/reference/index.ts";
import { bindWeights, forwardGraph } from "../src/run/forward.ts";
import { type Tensor, toNumbers } from "../src/tensor/index.ts";
import { drawBatch, drawWeights, sliceTo } from "./support/model.ts";
import {
  CLASSES,
  compare,
  engine,
  type Outcome,
  type Setting,
  train,
} from "./support/shared-runs.ts";
import { assertSameBitsAcrossThreads } from "./support/threads.ts";

after(() => engine.close());

const SIZE = { layers: 2, width: 24, heads: 6, context: 12, vocabulary: CLASSES };
const model = (experts: GptExperts, others = {}) => gpt({ ...SIZE, ...others, experts });

const MODELS: Readonly<Record<string, ModelDefinition>> = {
  "without a capacity": model({ count: 4, zLoss: 1e-3 }, { dropout: 0.1 }),
  "with a capacity": model({ count: 4, capacity: 1 }, { activation: "swiglu", norm: "rms" }),
  "of Switch Transformer": model({ count: 4, topK: 1, capacity: 1.25, every: 2 }),
};
const OVER_BATCH = model({ count: 4, capacity: 1, balance: 0.1, balanceOver: "batch" });

const SETTINGS: readonly Setting[] = [
  { parallel: { data: 2 } },
  { parallel: { shard: 2 } },
  { parallel: { pipeline: 2 } },
  { recompute: "blocks" },
];

const known = new Map<ModelDefinition, Promise<Outcome[]>>();

async function hasBitsOfOne(definition: ModelDefinition, setting: Setting): Promise<void> {
  const found = known.get(definition) ?? train(definition);
  known.set(definition, found);
  const [alone] = await found;
  for (const { losses, norms, parameters } of await train(definition, setting)) {
    assert.deepEqual(losses, alone?.losses);
    assert.deepEqual(norms, alone?.norms);
    assert.deepEqual(parameters, alone?.parameters);
  }
}

for (const [name, definition] of Object.entries(MODELS)) {
  for (const setting of SETTINGS) {
    test(`experts ${name} on ${JSON.stringify(setting)} have the bits of one process`, async () => {
      await hasBitsOfOne(definition, setting);
    });
  }
  test(`experts ${name} on ranks that divide the model have the losses of one process`, async () => {
    const [first] = await compare(definition, { parallel: { tensor: 2 } });
    const cuts = first?.trainer.plan.divided?.tensors;
    for (const part of ["up", "down"]) {
      const name = `blocks.1.feed_forward.experts.${part}.weight`;
      assert.ok(cuts?.has(name), `${name} is divided`);
    }
  });
}

test("a balance over the whole batch has the bits of one process where ranks hold all parameters", async () => {
  for (const zero of [1, 2] as const) {
    await hasBitsOfOne(OVER_BATCH, { parallel: { data: 2 }, zero });
  }
  await hasBitsOfOne(OVER_BATCH, { recompute: "blocks" });
});

test("a balance over the whole batch is refused where ranks hold parts of the parameters", async () => {
  const ways = [{ shard: 2 }, { pipeline: 2 }, { tensor: 2 }];
  for (const parallel of ways) {
    await assert.rejects(train(OVER_BATCH, { parallel }), {
      code: "INVALID_OPTION",
      message: /does not go together yet with the loss of "gpt".*balanceOver: "sequence"/s,
    });
  }
});

test("the losses do not depend on the number of micro-batches", async () => {
  for (const definition of [...Object.values(MODELS), OVER_BATCH]) {
    const [whole, ...divided] = await Promise.all(
      [1, 2, 8].map(async (microBatches) => (await train(definition, { microBatches }))[0]),
    );
    for (const other of divided) {
      const apart = other?.losses.map((loss, at) => Math.abs(loss - (whole?.losses[at] as number)));
      assert.ok(Math.max(...(apart ?? [1])) < 2e-5, `${apart}`);
    }
  }
});

test("a GPT with experts learns", async () => {
  for (const definition of [...Object.values(MODELS), OVER_BATCH]) {
    const [one] = await train(definition, { parallel: { data: 2 } });
    const [first = 0, last = 0] = [one?.losses[0], one?.losses.at(-1)];
    assert.ok(last < 0.95 * first && last < Math.log(CLASSES), `${first} to ${last}`);
  }
});

test("one thread and two make the same gradients of experts", async () => {
  const two = createOrtEngine({ threads: 2 });
  after(() => two.close());
  const ways: [batch: number, capacity: number | undefined][] = [
    [4, undefined],
    [4, 1.25],
    [1, 0.03], // one row for each expert
  ];
  for (const [batch, capacity] of ways) {
    const experts = { count: 4, ...(capacity === undefined ? {} : { capacity }) };
    const wide = gpt({ layers: 1, width: 64, heads: 2, context: 64, vocabulary: 64, experts });
    const built = wide.build({ batch, mode: "train" });
    const names = built.parameters.map(({ name }) => name);
    const { graph } = differentiate(sliceTo(built.graph, ["loss"]), "loss", names);
    const inputs = { ...drawWeights(built), ...drawBatch(built, { ids: 64, targets: 64 }) };
    await assertSameBitsAcrossThreads(graph, inputs, { engine: two });
  }
});

test("the exported model takes any batch", async () => {
  for (const definition of Object.values(MODELS)) {
    const built = definition.build({ batch: 3, mode: "eval", exported: true });
    const weights = drawWeights(built);
    const found = toSymbolicBatch((batch) =>
      forwardGraph(definition.build({ batch, mode: "eval", exported: true })),
    );
    assert.equal(found.fixed, undefined);
    const bytes = encodeModel(bindWeights(found.graph, weights), found.encode);
    const session = await ort.InferenceSession.create(bytes);
    for (const batch of [1, 3, 5]) {
      const own = definition.build({ batch, mode: "eval" });
      const { ids, targets } = drawBatch(own, { ids: CLASSES, targets: CLASSES }) as Record<
        string,
        Tensor
      >;
      const feed = new ort.Tensor("int32", Int32Array.from(toNumbers(ids as Tensor)), [batch, 12]);
      const { logits } = (await session.run({ ids: feed })) as { logits: ort.Tensor };
      const expected = interpret(own.graph, { ...weights, ids, targets } as Record<string, Tensor>);
      const wanted = toNumbers(expected["logits"] as Tensor);
      const got = [...(logits.data as Float32Array)];
      const worst = Math.max(...got.map((value, at) => Math.abs(value - (wanted[at] as number))));
      assert.ok(got.length === wanted.length && worst < 1e-4, `batch ${batch}: ${worst}`);
    }
  }
});

test("the start of a run says what the router adds to the loss, and what a missing capacity costs", () => {
  const notesOf = (experts: GptExperts) =>
    model(experts).build({ batch: 1, mode: "train" }).notes.join("\n");
  assert.match(notesOf({ count: 8 }), /8 experts .* 4 times the work of the 2 /);
  assert.match(notesOf({ count: 8 }), /training loss has 0.01 times their load-balancing loss for/);
  assert.match(notesOf({ count: 8, capacity: 1, zLoss: 0.1 }), /loss and 0.1 times their z-loss/);
  assert.equal(notesOf({ count: 8, capacity: 1, balance: 0 }), "");
});

test("options of experts are checked like others", () => {
  const refuses = (experts: object, message: RegExp) =>
    assert.throws(() => model(experts as GptExperts).build({ batch: 1, mode: "train" }), {
      code: "INVALID_OPTION",
      message,
    });
  refuses({ count: 4, topk: 2 }, /no option "topk" in "experts".*Did you mean "topK"/s);
  refuses(4 as never, /gpt: experts is 4/);
  refuses({ topK: 2 }, /gpt: experts\.count is undefined/);
  refuses({ count: 4, capacity: -1 }, /gpt: experts\.capacity is -1/);
  refuses({ count: 2, topK: 3 }, /blocks\.0\.feed_forward: each token would go through 3 of 2/);
  refuses({ count: 2, every: 3 }, /every is 3, and with 2 layers no block has experts/);
  const named = model({ count: 4, every: 2 }).build({ batch: 1, mode: "train" }).parameters;
  const own = named.filter(({ name }) => name.includes("feed_forward"));
  assert.deepEqual(
    own.map(({ name, type, decay }) => [name, type.shape.join(" × "), decay]),
    [
      ["blocks.0.feed_forward.up.weight", "24 × 96", true],
      ["blocks.0.feed_forward.up.bias", "96", false],
      ["blocks.0.feed_forward.down.weight", "96 × 24", true],
      ["blocks.0.feed_forward.down.bias", "24", false],
      ["blocks.1.feed_forward.router.weight", "24 × 4", true],
      ["blocks.1.feed_forward.experts.up.weight", "4 × 24 × 96", true],
      ["blocks.1.feed_forward.experts.up.bias", "4 × 1 × 96", false],
      ["blocks.1.feed_forward.experts.down.weight", "4 × 96 × 24", true],
      ["blocks.1.feed_forward.experts.down.bias", "4 × 1 × 24", false],
    ],
  );
});
