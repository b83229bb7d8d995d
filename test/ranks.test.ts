/**
 * The weights are the same, bit for bit, on any number of ranks: with dropout, with batch
 * normalization, over any transport.
 */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { createOrtEngine, type Device } from "../src/engine/index.ts";
import { LockstepError } from "../src/errors.ts";
import { add, div, mul, reduceSum } from "../src/functional/index.ts";
import type { Graph, Value } from "../src/graph/index.ts";
import { createMesh, evenTopology } from "../src/mesh/index.ts";
import { defineModel, gpt, linear, type ModelDefinition, resnet } from "../src/nn/index.ts";
import { extendGraph } from "../src/ops/index.ts";
import { adafactor, adamw, muon, type Optimizer } from "../src/optimizer/index.ts";
import { applyStrategies, compress, data, type Strategy } from "../src/parallel/index.ts";
import { buildStep } from "../src/plan/index.ts";
import { COMPUTE, lower, receivedBytes, type Stage } from "../src/program/index.ts";
import { elementCount, tensorFrom } from "../src/tensor/index.ts";
import {
  createTrainer,
  type FillBatch,
  type Prepared,
  prepare,
  type Trainer,
  type TrainerOptions,
} from "../src/train/index.ts";
import { onDisk } from "./support/folder.ts";
import { randomNumbers } from "./support/random.ts";
import { simulatedRanks } from "./support/ranks.ts";

const engine = createOrtEngine({ threads: 1 });
const folder = mkdtempSync(join(onDisk(), "lockstep-ranks-"));
let collected = 0;
after(async () => {
  for (const { prepared } of courses) (await prepared).close();
  await engine.close();
  rmSync(folder, { recursive: true, force: true });
});

const SAMPLES = 16;
const MICRO_BATCHES = 8;
const CLASSES = 10;
const STEPS = 4;

const GPT = gpt({
  layers: 2,
  width: 32,
  heads: 2,
  context: 16,
  vocabulary: CLASSES,
  dropout: 0.1,
});

const MODELS: Readonly<Record<string, ModelDefinition>> = {
  "gpt with dropout": GPT,
  "convnet with batch normalization": resnet({
    image: [3, 8, 8],
    classes: CLASSES,
    blocks: [1, 1],
    channels: [8, 16],
    stem: "small",
  }),
};

/** Fills samples that depend on their position alone. */
function filling(ranges: readonly { readonly start: number; readonly end: number }[]): FillBatch {
  const positions = ranges.flatMap(({ start, end }) =>
    Array.from({ length: end - start }, (_, index) => start + index),
  );
  return (into) => {
    for (const [field, tensor] of Object.values(into).entries()) {
      const isClass = tensor.dtype === "int32";
      const width = elementCount(tensor.shape) / positions.length;
      const numbers: number[] = [];
      for (const position of positions) {
        const seed = field * 1000 + (position % SAMPLES);
        numbers.push(...randomNumbers(seed, width, [0, isClass ? CLASSES : 1]));
      }
      const values = isClass ? numbers.map(Math.floor) : numbers;
      tensor.bytes.set(tensorFrom(tensor.dtype, tensor.shape, values).bytes);
    }
  };
}

interface Outcome {
  readonly losses: readonly number[];
  readonly norms: readonly number[];
  /** Undefined if other nodes hold parts that this rank does not get. */
  readonly weights: Readonly<Record<string, string>> | undefined;
}

interface Setting
  extends Pick<
    TrainerOptions,
    "reproducible" | "bucketBytes" | "parallel" | "zero" | "recompute" | "offload" | "strategies"
  > {
  readonly threads?: number;
  /** The number of ranks of the run. Default: 1. */
  readonly ranks?: number;
  /** The number of nodes. Ranks of one node read each other's memory. Default: 1. */
  readonly nodes?: number;
  readonly optimizer?: Optimizer;
  /** The engine of rank 0. Default: that of all ranks. */
  readonly engine?: Device;
  readonly afterwards?: (trainers: readonly Trainer[]) => void;
}

/** The ranks of each node. */
function nodesOf(ranks: number, nodes: number): number[][] {
  const each = ranks / nodes;
  return Array.from({ length: nodes }, (_, node) =>
    Array.from({ length: each }, (_, place) => node * each + place),
  );
}

/** What all ranks of a run have in common: the step of one process is planned once. */
interface Course {
  readonly definition: ModelDefinition;
  readonly optimizer: Optimizer;
  readonly options: Pick<
    TrainerOptions,
    "engine" | "model" | "optimizer" | "clip" | "microBatches"
  >;
  readonly prepared: Promise<Prepared>;
}

const courses: Course[] = [];
const ADAMW = adamw({ learningRate: 1e-2 });

function courseOf(definition: ModelDefinition, optimizer: Optimizer): Course {
  const known = courses.find(
    (course) => course.definition === definition && course.optimizer === optimizer,
  );
  if (known !== undefined) return known;
  const options = {
    engine,
    model: definition.build({ batch: SAMPLES / MICRO_BATCHES, mode: "train" }),
    optimizer,
    clip: 1,
    microBatches: MICRO_BATCHES,
  } as const;
  const course = {
    definition,
    optimizer,
    options,
    prepared: prepare({ ...options, isApart: false }),
  };
  courses.push(course);
  return course;
}

async function trainRanks(
  definition: ModelDefinition,
  setting: Setting = {},
): Promise<readonly Outcome[]> {
  const { ranks = 1, nodes = 1, optimizer = ADAMW, ...rest } = setting;
  const { reproducible, bucketBytes, parallel, zero, recompute, offload, strategies } = rest;
  const simulated =
    ranks === 1 ? undefined : simulatedRanks(engine, ranks, nodes < ranks, nodesOf(ranks, nodes));
  const { options, prepared } = courseOf(definition, optimizer);
  const make = async (rank: number): Promise<Trainer> => {
    const group = simulated?.groups[rank];
    const own = rank === 0 ? rest.engine : undefined;
    const given = {
      ...options,
      ...(own === undefined ? {} : { engine: own }),
      ranks: group && { group, adapt: false },
      reproducible,
      bucketBytes,
      parallel,
      zero,
      recompute,
      offload,
      offloadFolder: folder,
      strategies,
    };
    return createTrainer(given, own === undefined ? await prepared : undefined);
  };
  const trainers = await Promise.all(Array.from({ length: ranks }, (_, rank) => make(rank)));
  const outcomes = await Promise.all(trainers.map(runSteps));
  rest.afterwards?.(trainers);
  for (const trainer of trainers) trainer.close();
  await simulated?.close();
  return outcomes;
}

async function runSteps(trainer: Trainer): Promise<Outcome> {
  const losses: number[] = [];
  const norms: number[] = [];
  for (let step = 0; step < STEPS; step++) {
    const positions = { start: step * SAMPLES, end: (step + 1) * SAMPLES };
    const fill = filling(trainer.ownPositions(positions));
    const { loss, gradientNorm } = await trainer.step({ positions, fill });
    losses.push(loss);
    norms.push(gradientNorm);
  }
  await trainer.collect(join(folder, `collected-${collected++}`));
  if (!trainer.isWhole) return { losses, norms, weights: undefined };
  const { parameters, slots, states } = await trainer.read();
  const tensors = Object.entries({ ...parameters, ...slots, ...states });
  const weights = tensors.map(([name, { bytes }]) => [name, Buffer.from(bytes).toString("base64")]);
  return { losses, norms, weights: Object.fromEntries(weights) as Outcome["weights"] };
}

/** Ranks and their nodes: all on one, each on its own, several on each of several. */
const PLACES: readonly (readonly [number, number])[] = [
  ...[2, 3, 4, 8].flatMap((ranks) => [[ranks, 1] as const, [ranks, ranks] as const]),
  [4, 2],
  [6, 3],
  [6, 2],
  [8, 2],
];

for (const [name, definition] of Object.entries(MODELS)) {
  test(`${name}: any number of ranks on any nodes gives the same bits`, async () => {
    const [alone] = await trainRanks(definition);
    assert.ok(alone !== undefined);
    assert.notEqual(alone.losses[0], alone.losses[STEPS - 1]);
    for (const [ranks, nodes] of PLACES) {
      // There are several buckets between nodes.
      const outcomes = await trainRanks(definition, { ranks, nodes, bucketBytes: 6000 });
      for (const [rank, outcome] of outcomes.entries()) {
        assert.deepEqual(outcome, alone, `rank ${rank} of ${ranks} on ${nodes} nodes`);
      }
    }
  });
}

for (const optimizer of [muon({ learningRate: 1e-2 }), adafactor({ learningRate: 1e-2 })]) {
  test(`${optimizer.kind}: its update is divided among ranks, and gives the same bits`, async () => {
    const [alone] = await trainRanks(GPT, { optimizer });
    for (const [ranks, nodes] of [
      [2, 1],
      [3, 3],
      [4, 2],
    ] as const) {
      for (const outcome of await trainRanks(GPT, { ranks, nodes, optimizer })) {
        assert.deepEqual(outcome, alone, `${ranks} ranks on ${nodes} nodes`);
      }
    }
  });
}

/**
 * A model without dropout, in which an engine may fuse what is cut: scores and their factors,
 * residual additions and normalizations.
 */
const PLAIN_GPT = gpt({ layers: 3, width: 64, heads: 2, context: 16, vocabulary: CLASSES });

for (const [name, definition] of Object.entries({ ...MODELS, gpt: PLAIN_GPT })) {
  for (const zero of [1, 2, 3] as const) {
    test(`${name}: zero ${zero} gives the same bits on any number of ranks`, async () => {
      const [alone] = await trainRanks(definition);
      for (const ranks of [2, 3, 4, 8]) {
        const outcomes = await trainRanks(definition, { ranks, zero, bucketBytes: 6000 });
        for (const [rank, outcome] of outcomes.entries()) {
          assert.deepEqual(outcome.norms, alone?.norms, `rank ${rank} of ${ranks}`);
          assert.ok(isDeepStrictEqual(outcome, alone), `rank ${rank} of ${ranks}`);
        }
      }
    });
  }
}

for (const [name, definition] of Object.entries({ ...MODELS, gpt: PLAIN_GPT })) {
  test(`${name}: recomputed activations give the same bits, alone and on ranks`, async () => {
    const [expected] = await trainRanks(definition);
    const places: Setting[] = [
      { ranks: 1 },
      { ranks: 2 },
      { ranks: 4 },
      { ranks: 4, nodes: 2 },
      { ranks: 4, nodes: 2, parallel: { data: 2, shard: 2 } },
      { ranks: 2, zero: 2 },
      ...([1, 3] as const).flatMap((zero) => [2, 4].map((ranks) => ({ ranks, zero }))),
    ];
    for (const place of places) {
      const afterwards = (trainers: readonly Trainer[]) => {
        // The whole pass would take the memory that its pieces save.
        for (const { plan } of trainers) assert.ok(!plan.graphs.has("gradient"));
      };
      const setting = { ...place, bucketBytes: 6000, recompute: "blocks" as const, afterwards };
      for (const [rank, outcome] of (await trainRanks(definition, setting)).entries()) {
        assert.deepEqual(
          outcome.norms,
          expected?.norms,
          `rank ${rank} of ${JSON.stringify(place)}`,
        );
        // Only rank 0 gets what other nodes hold.
        const weights = rank === 0 ? outcome.weights : (outcome.weights ?? expected?.weights);
        assert.ok(
          isDeepStrictEqual({ ...outcome, weights }, expected),
          `rank ${rank} of ${JSON.stringify(place)}`,
        );
      }
    }
  });
}

for (const zero of [undefined, 1, 3] as const) {
  test(`what lies on disk gives the same bits on 1 to 4 ranks, zero ${zero ?? "none"}`, async () => {
    const [alone] = await trainRanks(GPT);
    const places: Setting[] = [
      ...[1, 2, 3, 4].map((ranks) => ({ ranks })),
      { ranks: 2, nodes: 2 },
      { ranks: 4, nodes: 2 },
      { ranks: 4, nodes: 2, parallel: { data: 2, shard: 2 } },
      { ranks: 2, recompute: "blocks" },
    ];
    for (const place of places) {
      const afterwards = (trainers: readonly Trainer[]) => {
        for (const { plan } of trainers) {
          const lies = (name: string) => plan.buffers.get(name)?.space;
          const isSharded = zero === 3 && trainers.length > 1;
          assert.equal(lies("slot.0.exp_avg"), "disk");
          assert.equal(lies("slot.0.exp_avg_sq"), "disk");
          if (isSharded) assert.equal(lies("parameters"), "disk");
          else if (zero !== undefined) assert.equal(lies("parameters"), "device");
          assert.equal(lies("gradients"), "device");
        }
        const named = readdirSync(folder).filter((name) => name.startsWith("lockstep-"));
        assert.deepEqual(named, [], "no file has a name");
      };
      const setting = { ...place, zero, bucketBytes: 6000, offload: "disk" as const, afterwards };
      for (const [rank, outcome] of (await trainRanks(GPT, setting)).entries()) {
        const weights = rank === 0 ? outcome.weights : (outcome.weights ?? alone?.weights);
        const where = `rank ${rank} of ${JSON.stringify(place)}`;
        assert.ok(isDeepStrictEqual({ ...outcome, weights }, alone), where);
      }
    }
  });
}

test("slots of updates that ranks share out lie on disk with the same bits", async () => {
  for (const optimizer of [muon({ learningRate: 1e-2 }), adafactor({ learningRate: 1e-2 })]) {
    const [alone] = await trainRanks(GPT, { optimizer });
    for (const place of [{ ranks: 1 }, { ranks: 3 }, { ranks: 4, nodes: 2 }]) {
      const setting = { ...place, optimizer, offload: "disk" as const };
      for (const outcome of await trainRanks(GPT, setting)) {
        assert.deepEqual(outcome, alone, `${optimizer.kind}, ${JSON.stringify(place)}`);
      }
    }
  }
});

/** Workers, their nodes, and the stated axes. Each model gets a third of them, with each stage. */
const SHARDED = [
  [2, 2, { shard: 2 }],
  [3, 3, { shard: 3 }],
  [4, 2, { shard: 4 }],
  [4, 4, { shard: 4 }],
  [4, 1, { data: 2, shard: 2 }],
  [4, 2, { data: 2, shard: 2 }],
  [6, 2, { data: 2, shard: 3 }],
  [6, 2, { data: 3, shard: 2 }],
  [8, 2, { data: 4, shard: 2 }],
  [8, 4, { data: 4, shard: 2 }],
  [8, 4, { data: 2, shard: 4 }],
  [8, 2, { shard: 8 }],
] as const;

for (const [turn, [name, definition]] of Object.entries({ ...MODELS, gpt: PLAIN_GPT }).entries()) {
  for (const zero of [1, 2, 3] as const) {
    test(`${name}: zero ${zero} gives the same bits within nodes, across them, and both`, async () => {
      const [alone] = await trainRanks(definition);
      for (const [ranks, nodes, parallel] of SHARDED.filter((_, at) => at % 3 === turn)) {
        const where = `${ranks} ranks on ${nodes} nodes, ${JSON.stringify(parallel)}`;
        const setting = { ranks, nodes, parallel, zero, bucketBytes: 6000 };
        for (const [rank, outcome] of (await trainRanks(definition, setting)).entries()) {
          assert.deepEqual(outcome.norms, alone?.norms, `rank ${rank} of ${where}`);
          // Only rank 0 gets what other nodes hold.
          const weights = rank === 0 ? outcome.weights : (outcome.weights ?? alone?.weights);
          assert.ok(isDeepStrictEqual({ ...outcome, weights }, alone), `rank ${rank} of ${where}`);
        }
      }
    });
  }
}

test("a loss with denominators of the whole batch gives the same bits however it is sharded", async () => {
  const definition = defineModel("two tasks", (m) => {
    const x = m.input("x", [m.batch, 4]);
    const [first, second] = ["first", "second"].map((name) => m.input(name, [m.batch]));
    const hidden = linear(m.child("body"), x, { outputs: 40 });
    const errors = mul(hidden, hidden);
    const mean = (weights: Value) => {
      const each = reduceSum(errors, { axes: [1], keepdims: false });
      const all = { keepdims: false };
      return div(reduceSum(mul(each, weights), all), reduceSum(weights, all));
    };
    const [a, b] = [first, second].map((weights) => mean(weights as Value)) as [Value, Value];
    return { loss: add(a, mul(b, 0.5)) };
  });
  const [alone] = await trainRanks(definition);
  for (const [ranks, nodes, parallel] of SHARDED) {
    const where = `${ranks} ranks on ${nodes} nodes, ${JSON.stringify(parallel)}`;
    for (const { norms, losses } of await trainRanks(definition, { ranks, nodes, parallel })) {
      assert.deepEqual({ norms, losses }, { norms: alone?.norms, losses: alone?.losses }, where);
    }
  }
});

test("stated axes: data alone, shard alone, and a product that must be the number of workers", async () => {
  const [alone] = await trainRanks(GPT);
  for (const parallel of [{ data: 2 }, { shard: 2 }]) {
    for (const outcome of await trainRanks(GPT, { ranks: 2, parallel })) {
      assert.deepEqual(outcome, alone, JSON.stringify(parallel));
    }
  }
  await assert.rejects(
    trainRanks(GPT, { ranks: 2, parallel: { data: 2, shard: 2 } }),
    /data 2 times shard 2 makes 4 workers, but the run has 2/,
  );
});

test("an optimizer that needs whole parameters is refused if gradients are sharded", async () => {
  for (const nodes of [1, 2]) {
    await assert.rejects(
      trainRanks(GPT, { ranks: 2, nodes, zero: 3, optimizer: muon() }),
      /updates whole parameters/,
    );
  }
});

function stagesOf({ plan }: Trainer): Stage[] {
  const { compute } = plan.sides[0];
  return compute.flatMap((stage) =>
    stage.mode === "tasks" ? stage.tasks.flatMap(({ work }) => work) : [stage],
  );
}

test("between nodes, each bucket is sent while the following segments are computed", async () => {
  let seen = 0;
  const afterwards = (trainers: readonly Trainer[]) => {
    for (const { plan } of trainers) {
      const [tasks] = plan.sides[0].compute.flatMap((stage) =>
        stage.mode === "tasks" ? [stage.tasks] : [],
      );
      assert.ok(tasks !== undefined && tasks.length >= 6, "three pieces and their buckets");
      for (const task of tasks) {
        if (task.lane === COMPUTE) {
          assert.ok(task.after.every((index) => tasks[index]?.lane === COMPUTE));
        }
      }
      seen += 1;
    }
  };
  await trainRanks(GPT, { ranks: 2, nodes: 2, bucketBytes: 6000, afterwards });
  assert.equal(seen, 2);
});

/** Returns the engine with another `compile`. */
function engineWith(compile: Device["compile"]): Device {
  const { name, version, threads, runs } = engine;
  return {
    name,
    version,
    threads,
    runs,
    allocate: (...given) => engine.allocate(...given),
    prepare: (graph) => engine.prepare(graph),
    allocateHost: (...given) => engine.allocateHost(...given),
    upload: (...given) => engine.upload(...given),
    download: (...given) => engine.download(...given),
    copy: (...given) => engine.copy(...given),
    attach: (...given) => engine.attach(...given),
    close: () => engine.close(),
    compile,
  };
}

/** An engine that computes segments of a gradient differently from the whole. */
const oddEngine = engineWith((graph, options) => {
  if (!graph.name.endsWith("piece 1")) return engine.compile(graph, options);
  const builder = extendGraph(graph);
  const outputs = graph.outputs.map((output) => mul(builder.value(output), 1.000001));
  return engine.compile(renameTo(builder.build(outputs), graph.outputs), options);
});

/**
 * Returns an engine whose second segment fails in its `nth` execution, while the first bucket is
 * being sent.
 */
function failingEngine(nth: number): Device {
  let runs = 0;
  return engineWith(async (graph, options) => {
    const executable = await engine.compile(graph, options);
    if (!graph.name.endsWith("piece 1")) return executable;
    const { mayAlias } = executable;
    return {
      graph: executable.graph,
      mayAlias: (...given) => mayAlias.apply(executable, given),
      close: () => executable.close(),
      bind: (tensors) => {
        const binding = executable.bind(tensors);
        const run: typeof binding.run = (runOptions) => {
          runs += 1;
          if (runs === nth) return Promise.reject(new LockstepError("ENGINE_FAILED", "no more"));
          return binding.run(runOptions);
        };
        return { run, runSync: () => binding.runSync(), close: () => binding.close() };
      },
    };
  });
}

/**
 * Returns the same graph with these names for its outputs; values that had the names before get
 * others.
 */
function renameTo(graph: Graph, names: readonly string[]): Graph {
  const swapped = new Map<string, string>();
  for (const [index, output] of graph.outputs.entries()) {
    swapped.set(output, names[index] as string);
    swapped.set(names[index] as string, `${names[index]}/before`);
  }
  const rename = (name: string) => swapped.get(name) ?? name;
  return {
    ...graph,
    outputs: graph.outputs.map(rename),
    nodes: graph.nodes.map((node) => ({
      ...node,
      inputs: node.inputs.map(rename),
      outputs: node.outputs.map(rename),
    })),
    types: new Map([...graph.types].map(([name, type]) => [rename(name), type])),
  };
}

test("a rank whose engine gives other bits for segments computes the gradient whole", async () => {
  const [alone] = await trainRanks(GPT);
  const cuts: boolean[] = [];
  const outcomes = await trainRanks(GPT, {
    ranks: 2,
    nodes: 2,
    bucketBytes: 6000,
    engine: oddEngine,
    afterwards: (trainers) =>
      cuts.push(...trainers.map(({ plan }) => plan.sides[0].pieces !== undefined)),
  });
  assert.deepEqual(cuts, [false, true]);
  for (const outcome of outcomes) assert.deepEqual(outcome, alone);
});

test("a segment that fails while a bucket is sent ends the run of all ranks", async () => {
  // One execution checks the cut, four are the micro-batches of a step, and then follows the last
  // one of the second step.
  const setting = { ranks: 2, nodes: 2, bucketBytes: 6000, engine: failingEngine(1 + 4 + 4) };
  await assert.rejects(trainRanks(GPT, setting), /no more/);
});

test("sums in any order give nearly the same, and move fewer bytes", async () => {
  const [alone] = await trainRanks(GPT);
  assert.ok(alone !== undefined);
  for (const [ranks, nodes] of [
    [3, 1],
    [3, 3],
    [6, 2],
  ] as const) {
    const traffic: number[] = [];
    const outcomes: Outcome[] = [];
    for (const reproducible of [true, false]) {
      // The last rank has a part of each piece to sum, however small it is.
      const afterwards = (trainers: readonly Trainer[]) => {
        const last = trainers.at(-1) as Trainer;
        const { groups } = last.plan;
        const placeOf = (group: string) => (groups.get(group)?.length ?? 0) - 1;
        traffic.push(receivedBytes(stagesOf(last), placeOf));
      };
      const setting = { ranks, nodes, bucketBytes: 6000, reproducible, afterwards };
      const [outcome, ...others] = await trainRanks(GPT, setting);
      for (const other of others) assert.deepEqual(other, outcome, "all ranks are alike");
      outcomes.push(outcome as Outcome);
    }
    assert.deepEqual(outcomes[0], alone);
    const gap = Math.abs((outcomes[1]?.losses[STEPS - 1] ?? 0) - (alone.losses[STEPS - 1] ?? 0));
    assert.ok(gap < 1e-4, `${gap}`);
    assert.ok((traffic[1] ?? 0) < 0.9 * (traffic[0] ?? 0), traffic.join(" "));
  }
});

test("more ranks than micro-batches are refused, if it is stated that they do not divide the model", async () => {
  const setting = { ranks: 9, parallel: { data: 9 } };
  await assert.rejects(trainRanks(GPT, setting), /8 micro-batches cannot be shared by 9/);
});

test("gradients in float16 halve the traffic, and train nearly the same", async () => {
  const model = PLAIN_GPT.build({ batch: 2, mode: "train" });
  const optimizer = adamw({ learningRate: 1e-2 });
  const mesh = createMesh({ data: 2 });
  const ground = { mesh, topology: evenTopology(2, 2) };
  const traffic = (strategies: readonly Strategy[]) => {
    const step = buildStep({ model, optimizer, microBatches: 2 });
    const program = lower(applyStrategies(strategies, step, mesh), { ground, rank: 1, optimizer });
    return receivedBytes(program.sides[0].compute, () => 1);
  };
  const ratio = traffic([data(), compress()]) / traffic([data()]);
  assert.ok(ratio > 0.45 && ratio < 0.6, `${ratio} of the traffic`);
  const [alone] = await trainRanks(PLAIN_GPT);
  const parallel = { data: 2 };
  const outcomes = await trainRanks(PLAIN_GPT, {
    ranks: 2,
    nodes: 2,
    parallel,
    strategies: [compress()],
    bucketBytes: 1e9,
  });
  assert.deepEqual(outcomes[0], outcomes[1], "all ranks are alike");
  const losses = outcomes[0]?.losses ?? [];
  assert.notDeepEqual(losses, alone?.losses);
  for (const [step, loss] of losses.entries()) {
    assert.ok(Math.abs(loss - (alone?.losses[step] ?? 0)) < 2e-2, `${loss} in step ${step}`);
  }
});
