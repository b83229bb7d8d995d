/**
 * Strategies are pure rewrites of a step, so their effect is tested without a process, an engine or
 * a clock.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createMesh, evenTopology, type Mesh, type Topology } from "../mesh/index.ts";
import { gpt, type ModelDefinition, mlp } from "../nn/index.ts";
import { adamw, muon, type Optimizer } from "../optimizer/index.ts";
import {
  buildStep,
  describeStep,
  hashStep,
  isOfKind,
  MICRO_BATCH,
  type StepGraph,
  stepFromJson,
  stepToJson,
  valueOf,
} from "../plan/index.ts";
import {
  applyStrategies,
  bucketBytes,
  buckets,
  chooseParallel,
  compress,
  data,
  PACES,
  type Parallel,
  sharedUpdates,
  zero1,
  zero2,
  zero3,
} from "./index.ts";

const GPT = gpt({ layers: 2, width: 32, heads: 2, context: 8, vocabulary: 11 });

function stepOf(
  definition: ModelDefinition = GPT,
  optimizer: Optimizer = adamw(),
  microBatches = 4,
): StepGraph {
  const model = definition.build({ batch: 2, mode: "train" });
  return buildStep({ model, optimizer, microBatches, clip: 1 });
}

const kinds = ({ tasks }: StepGraph) => tasks.map(({ kind }) => kind);

test("the step of one process has gradients, their sum, a decision, and the update", () => {
  const step = stepOf();
  assert.deepEqual(kinds(step), ["compute", "reduce", "norm", "decide", "update", "update"]);
  const [reduce] = step.tasks.filter(isOfKind("reduce"));
  assert.deepEqual(reduce?.axes, [MICRO_BATCH]);
  assert.deepEqual(valueOf(step, "batch:ids").type.shape, [8, 8]);
  assert.deepEqual(valueOf(step, "batch:ids").placement, { [MICRO_BATCH]: { shard: 0 } });
});

test("a batch that is computed whole has nothing to sum", () => {
  assert.deepEqual(kinds(stepOf(GPT, adamw(), 1)), [
    "compute",
    "norm",
    "decide",
    "update",
    "update",
  ]);
});

test("data sums over the axis what is summed over micro-batches, and exchanges paces", () => {
  const mesh = createMesh({ data: 3 });
  const step = applyStrategies([data()], stepOf(), mesh);
  const [reduce] = step.tasks.filter(isOfKind("reduce"));
  assert.deepEqual(reduce?.axes, [MICRO_BATCH, "data"]);
  assert.ok(reduce?.outputs.includes(PACES));
  assert.deepEqual(valueOf(step, PACES).type.shape, [3]);
  assert.deepEqual(valueOf(step, "batch:ids").placement, {
    [MICRO_BATCH]: { shard: 0 },
    data: { shard: 0 },
  });
  assert.deepEqual(valueOf(step, "partial gradient:norm.weight").placement, {
    [MICRO_BATCH]: "partial",
    data: "partial",
  });
  assert.deepEqual(valueOf(step, "gradient:norm.weight").placement, {});
});

test("an axis of one rank changes nothing", () => {
  const mesh = createMesh({ data: 1, shard: 1 });
  const step = stepOf();
  const strategies = [data(), data({ axis: "shard" }), zero1(["shard"]), sharedUpdates(["data"])];
  assert.equal(hashStep(applyStrategies(strategies, step, mesh)), hashStep(step));
});

test("zero 1 keeps gradients and slots sharded, divides updates, and gathers new parameters on all ranks", () => {
  const mesh = createMesh({ data: 2, shard: 2 });
  const strategies = [data(), data({ axis: "shard" }), zero1(["shard"])];
  const step = applyStrategies(strategies, stepOf(), mesh);
  const flat = { shard: { shard: "flat" } };
  assert.deepEqual(valueOf(step, "gradient:norm.weight").placement, flat);
  assert.deepEqual(valueOf(step, "slot:norm.weight.exp_avg").placement, flat);
  assert.deepEqual(valueOf(step, "parameter:norm.weight").placement, {});
  assert.deepEqual(valueOf(step, "term:0").placement, {});
  const updates = step.tasks.filter(isOfKind("update"));
  assert.ok(updates.every(({ axes }) => axes.join() === "shard"));
  for (const update of updates) {
    const gather = step.tasks[step.tasks.indexOf(update) + 1];
    assert.ok(gather?.kind === "gather" && gather.axes.join() === "shard");
    assert.ok(gather.inputs.every((name) => update.outputs.includes(name)));
    assert.ok(gather.inputs.every((name) => valueOf(step, name).role === "parameter"));
  }
});

test("compression is refused where gradients are summed in shards or in buckets", () => {
  const mesh = createMesh({ shard: 2 });
  const summed = data({ axis: "shard" });
  const ways = [[zero2(["shard"], 1000)], [zero3(["shard"])], [buckets({ bucketBytes: 1000 })]];
  for (const way of ways) {
    assert.throws(
      () => applyStrategies([summed, ...way, compress()], stepOf(), mesh),
      /cannot be exchanged in float16 .* in buckets or shards/,
    );
  }
  applyStrategies([summed, zero1(["shard"]), compress()], stepOf(), mesh);
});

test("updates of whole parameters are divided by parameter, and their slots are gathered on all ranks", () => {
  const mesh = createMesh({ data: 2 });
  const step = applyStrategies([data(), sharedUpdates(["data"])], stepOf(GPT, muon()), mesh);
  const shared = step.tasks.filter(isOfKind("update")).filter(({ axes }) => axes.length > 0);
  assert.ok(shared.length > 0 && shared.every(({ granularity }) => granularity === "tensor"));
  const gathered = step.tasks.filter(isOfKind("gather")).flatMap(({ inputs }) => inputs);
  const roles = new Set(gathered.map((name) => valueOf(step, name).role));
  assert.deepEqual([...roles].sort(), ["parameter", "slot"]);
});

test("each bucket is summed after the piece that makes its last gradient, and all gradients are summed once", () => {
  const mesh = createMesh({ data: 2 });
  const before = applyStrategies([data()], stepOf(), mesh);
  const step = applyStrategies([data(), buckets({ bucketBytes: 4000 })], stepOf(), mesh);
  const reduces = step.tasks.filter(isOfKind("reduce"));
  const pieces = step.tasks.filter(isOfKind("compute"));
  assert.ok(reduces.length > 3 && pieces.length > 3, `${reduces.length} and ${pieces.length}`);
  const sums = (graph: StepGraph) =>
    graph.tasks
      .filter(isOfKind("reduce"))
      .flatMap(({ inputs }) => inputs)
      .sort();
  assert.deepEqual(sums(step), sums(before));
  const nodes = (graph: StepGraph) =>
    graph.tasks
      .filter(isOfKind("compute"))
      .reduce((sum, task) => sum + (graph.graphs.get(task.graph)?.nodes.length ?? 0), 0);
  assert.equal(nodes(step), nodes(before), "every node is in one piece");
  // Gradients of the last layers are ready first.
  assert.ok(reduces[0]?.inputs.includes("partial gradient:norm.weight"));
  const whole = applyStrategies(
    [data(), buckets({ bucketBytes: 4000, overlap: false })],
    stepOf(),
    mesh,
  );
  assert.equal(whole.tasks.filter(isOfKind("compute")).length, 1);
  assert.equal(whole.tasks.filter(isOfKind("reduce")).length, reduces.length);
});

test("strategies compose in any order that they allow", () => {
  const mesh = createMesh({ data: 2, shard: 2 });
  const bucketed = buckets({ bucketBytes: 4000 });
  const one = [data(), data({ axis: "shard" }), zero1(["shard"]), bucketed];
  const other = [bucketed, data(), data({ axis: "shard" }), zero1(["shard"])];
  const tasks = (strategies: typeof one) =>
    describeStep(applyStrategies(strategies, stepOf(), mesh)).map((line) =>
      line.replace(/\d+ values.*/, ""),
    );
  assert.deepEqual(tasks(one).slice(-6), tasks(other).slice(-6));
});

test("a step survives JSON, and its hash shows any change", () => {
  const mesh = createMesh({ data: 2, shard: 2 });
  const strategies = [
    data(),
    data({ axis: "shard" }),
    zero1(["shard"]),
    buckets({ bucketBytes: 4000 }),
  ];
  const step = applyStrategies(strategies, stepOf(), mesh);
  const text = JSON.stringify(stepToJson(step));
  const read = stepFromJson(JSON.parse(text));
  assert.equal(JSON.stringify(stepToJson(read)), text);
  assert.equal(hashStep(read), hashStep(step));
  assert.notEqual(hashStep(step), hashStep(stepOf()));
  const other = { ...JSON.parse(text), format: "lockstep-step-0" };
  assert.throws(() => stepFromJson(other), /this version reads "lockstep-step-6"/);
  const cut = JSON.parse(text);
  cut.tasks.splice(0, 1);
  assert.throws(() => stepFromJson(cut), /too early/);
});

test("a step is printed on a few lines", () => {
  const model = mlp({ inputs: 4, hidden: [8], outputs: 2 });
  const { mesh, strategies } = choose(evenTopology(4, 2), stepOf(model));
  const lines = describeStep(applyStrategies(strategies, stepOf(model), mesh));
  assert.ok(lines.length < 15, lines.join("\n"));
  assert.match(lines.join("\n"), /sum over micro-batch and data and shard \(tree\)/);
  assert.match(lines.join("\n"), /decide +commit or abort/);
});

test("nodes sum in place within one, and replicate between them", () => {
  const chosen = (ranks: number, nodes: number) => {
    const { mesh, strategies, reason } = choose(
      evenTopology(ranks, nodes),
      stepOf(GPT, adamw(), 8),
    );
    assert.ok(reason.endsWith("."));
    return [axesOf(mesh), strategies.map(({ name }) => name.split(" ")[0]).join(" ")];
  };
  assert.deepEqual(chosen(1, 1), ["", ""]);
  assert.deepEqual(chosen(4, 1), ["shard=4", "data zero updates"]);
  assert.deepEqual(chosen(4, 4), ["data=4", "data updates buckets"]);
  assert.deepEqual(chosen(4, 2), ["data=2 shard=2", "data data zero updates buckets"]);
  // Nodes of different sizes cannot share a mesh: each rank counts as a node.
  const uneven = choose({ nodes: [[0, 1], [2]] }, stepOf());
  assert.equal(axesOf(uneven.mesh), "data=3");
});

/** By predicted costs, with memory without a limit. */
function choose(topology: Topology, step: StepGraph): Parallel {
  const link = { latency: 1e-4, bytesPerSecond: 1e9 };
  const machine = { memory: Number.POSITIVE_INFINITY, lanes: 1, flopsPerSecond: 8e10, link };
  const optimizer = adamw();
  return chooseParallel({ topology, step, optimizer, machine, buckets: { bucketBytes: 1000 } });
}

function axesOf({ axes }: Mesh): string {
  return axes.map(({ name, size }) => `${name}=${size}`).join(" ");
}

test("buckets are large enough for their latency, and several if there are enough bytes", () => {
  assert.equal(bucketBytes({ latency: 1e-5, bytesPerSecond: 1e10 }, 80e6), 10e6);
  assert.equal(bucketBytes({ latency: 1e-3, bytesPerSecond: 1e8 }, 1e6), 1_600_000);
  assert.equal(bucketBytes({ latency: 1e-6, bytesPerSecond: 1e9 }, 1000), 2 ** 16);
});
