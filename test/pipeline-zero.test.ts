/**
 * Pipelines whose replicas share out the gradients of each stage (ZeRO-2), and gather its parameters
 * for each piece (ZeRO-3): they end with the bits of one process, in less memory.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { bert, gpt, type ModelDefinition, resnet } from "../src/nn/index.ts";
import { adamw } from "../src/optimizer/index.ts";
import { applyStrategies, chooseParallel } from "../src/parallel/index.ts";
import { buildStep } from "../src/plan/index.ts";
import { lower, residentMemory } from "../src/program/index.ts";
import { assertNear, CLASSES, engine, GPT, type Setting, train } from "./support/shared-runs.ts";

after(() => engine.close());

const STEPS = 4;
const size = { layers: 3, width: 24, heads: 6, context: 12, vocabulary: CLASSES };
const DROPOUT = gpt({ ...size, dropout: 0.1 });
const BERT = bert({ ...size, layers: 2, vocabulary: CLASSES + 1, dropout: 0.1 });
const RESNET = resnet({
  image: [3, 8, 8],
  classes: CLASSES,
  blocks: [1, 1],
  channels: [8, 16],
  stem: "small",
});
/** So small that each stage has several buckets. */
const small: Setting = { microBatches: 8, bucketBytes: 3000 };
const two = { shard: 2, pipeline: 2 };

const RUNS: readonly (readonly [string, ModelDefinition, Setting])[] = [
  ["a GPT with tied weights", GPT, { ...small, parallel: two, zero: 2 }],
  ["a GPT with dropout", DROPOUT, { ...small, parallel: two, timetable: "zb-v" }],
  // Waves of 3, 3 and 2 micro-batches: one of the pipelines has nothing to compute in its last turn.
  [
    "a ResNet with running statistics",
    RESNET,
    { ...small, parallel: { shard: 3, pipeline: 2 }, timetable: "interleaved" },
  ],
  [
    "BERT, whose loss has a count of its own",
    BERT,
    { ...small, parallel: { data: 2, ...two }, zero: 2, recompute: "blocks" },
  ],
];

for (const [name, definition, setting] of RUNS) {
  test(`${name} on ${JSON.stringify(setting)} has the bits of one process`, async () => {
    const [alone] = await train(definition, { microBatches: 8 }, { steps: STEPS });
    for (const outcome of await train(definition, setting, { steps: STEPS })) {
      assert.deepEqual(outcome.losses, alone?.losses);
      assert.deepEqual(outcome.norms, alone?.norms);
      assert.deepEqual(outcome.parameters, alone?.parameters);
    }
  });
}

test("matrices are divided, too: training follows that of one process", async () => {
  const setting: Setting = { parallel: { ...two, tensor: 2 }, microBatches: 4, bucketBytes: 3000 };
  const [alone] = await train(GPT, { microBatches: 4 }, { steps: STEPS });
  const outcomes = await train(GPT, setting, { steps: STEPS });
  for (const { losses, norms, parameters } of outcomes) {
    assertNear(losses, alone?.losses ?? [], 1e-4, "losses");
    assertNear(norms, alone?.norms ?? [], 1e-3, "norms");
    assert.deepEqual(parameters, outcomes[0]?.parameters, "one state");
  }
});

/** The memory of the rank that takes most, by what it is for. */
function memoryOf(zero: 1 | 2 | 3): ReadonlyMap<string, number> {
  const definition = gpt({ ...size, layers: 6, width: 96, heads: 4, context: 32, vocabulary: 256 });
  const model = definition.build({ batch: 1, mode: "train" });
  const optimizer = adamw({ learningRate: 1e-3 });
  const alone = buildStep({ model, optimizer, microBatches: 16, clip: 1 });
  const { mesh, topology, strategies } = chooseParallel({
    step: alone,
    optimizer,
    machine: {
      memory: 1e12,
      lanes: 1,
      flopsPerSecond: 8e10,
      link: { latency: 1e-4, bytesPerSecond: 1e9 },
    },
    topology: { nodes: [[0, 1, 2, 3, 4, 5, 6, 7]] },
    parallel: { shard: 4, pipeline: 2 },
    zero,
    timetable: "1f1b",
    buckets: { bucketBytes: 2 ** 17 },
  });
  const step = applyStrategies(strategies, alone, mesh);
  const most = new Map<string, number>();
  for (let rank = 0; rank < mesh.size; rank++) {
    const program = lower(step, { ground: { mesh, topology }, rank, optimizer });
    for (const [kind, bytes] of residentMemory(program)) {
      most.set(kind, Math.max(most.get(kind) ?? 0, bytes));
    }
  }
  return most;
}

test("each replica of a stage keeps the sums of its own tiles, and a bucket", () => {
  const [one, two, three] = [memoryOf(1), memoryOf(2), memoryOf(3)];
  const of = (memory: typeof one, kind: string) => memory.get(kind) ?? 0;
  // Three gradients of the stage, and then two of its quarters.
  assert.ok(of(two, "gradients") < 0.25 * of(one, "gradients"));
  assert.ok(of(two, "buckets") < 0.1 * of(one, "gradients"));
  for (const kind of ["parameters", "optimizer slots"] as const) {
    assert.equal(of(two, kind), of(one, kind), `zero 1 shares out ${kind} already`);
  }
  assert.ok(of(three, "gathered units") < of(two, "gathered units"));
});

test("replicas of a stage on several machines do not share out its gradients", async () => {
  const model = GPT.build({ batch: 1, mode: "train" });
  const optimizer = adamw({ learningRate: 1e-3 });
  const step = buildStep({ model, optimizer, microBatches: 8, clip: 1 });
  const machine = { memory: 1e12, lanes: 1, flopsPerSecond: 8e10 };
  const link = { latency: 1e-4, bytesPerSecond: 1e9 };
  const topology = {
    nodes: [
      [0, 1],
      [2, 3],
    ],
  };
  const options = { step, optimizer, machine: { ...machine, link }, topology };
  assert.throws(
    () => chooseParallel({ ...options, parallel: two, zero: 2 }),
    /shares out the gradients of a stage \(zero: 2\) among workers of one machine/,
  );
});
