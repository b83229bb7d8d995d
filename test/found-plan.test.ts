/**
 * The plan that is found where nothing is stated: against all ways there are, against the programs
 * that ways lead to, and as runs against one process.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createOrtEngine } from "../src/engine/index.ts";
import { evenTopology } from "../src/mesh/index.ts";
import { gpt } from "../src/nn/index.ts";
import { adamw } from "../src/optimizer/index.ts";
import {
  applyStrategies,
  chooseParallel,
  type DividedWay,
  DividedWays,
  totalOf,
} from "../src/parallel/index.ts";
import { buildStep, stepFacts } from "../src/plan/index.ts";
import { lower, totalOf as planned, residentMemory } from "../src/program/index.ts";
import { tensorFrom } from "../src/tensor/index.ts";
import { createTrainer, type FillBatch } from "../src/train/index.ts";
import { simulatedRanks } from "./support/ranks.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

const optimizer = adamw({ learningRate: 1e-2 });
const SMALL = gpt({ layers: 1, width: 16, heads: 2, context: 8, vocabulary: 12 });
/** Its parameters take more than all else, so that memory is what decides. */
const WIDE = gpt({ layers: 2, width: 256, heads: 4, context: 8, vocabulary: 12 });
/** Tiles that lie at the ends of stages are a small part of it. */
const DEEP = gpt({ layers: 8, width: 256, heads: 4, context: 8, vocabulary: 12 });
const LINK = { latency: 1e-4, bytesPerSecond: 1e9 };
const EXPERTS = gpt({
  layers: 2,
  width: 256,
  heads: 4,
  context: 8,
  vocabulary: 12,
  experts: { count: 4, topK: 2, capacity: 1.25 },
});

function stepOf(definition: typeof SMALL, microBatches: number, batch = 1) {
  const model = definition.build({ batch, mode: "train" });
  return buildStep({ model, optimizer, microBatches, clip: 1 });
}

/** What can be chosen from for so many ranks, and how a way of it is stated. */
function choiceOf(
  definition: typeof SMALL,
  ranks: number,
  microBatches: number,
  { batch = 1, within }: { batch?: number; within?: typeof LINK } = {},
) {
  const step = stepOf(definition, microBatches, batch);
  const topology = evenTopology(ranks, 1);
  // A slow rank: what is exchanged matters less than what is computed.
  const speeds = { lanes: 1, flopsPerSecond: 2e6, link: LINK, within };
  const machine = { memory: Number.POSITIVE_INFINITY, ...speeds };
  const buckets = { bucketBytes: 1e6 };
  const shared = { topology, step, optimizer, machine, buckets };
  const stated = ({ axes, sharing: { data, shard, zero }, again, timetable }: DividedWay) =>
    chooseParallel({
      ...shared,
      parallel: { data, shard, ...axes },
      zero: zero === 0 ? undefined : zero,
      recompute: again ? "blocks" : undefined,
      timetable,
    });
  const whole = { ...machine, topology, bucketBytes: 1e6 };
  const ways = new DividedWays({
    step,
    facts: stepFacts(step, optimizer),
    optimizer,
    machine: whole,
    isRecomputeStated: false,
    isTimetableStated: false,
    strategiesOf: (way) => stated(way).strategies.filter(({ name }) => DIVIDES.test(name)),
  });
  return { step, topology, machine: whole, ways, stated };
}

const DIVIDES = /^(?:tensors|sequences|experts) divided|^stages over|^recompute/;

test("what is found takes no more than a twentieth longer than the fastest of all ways that fit", () => {
  const { ways } = choiceOf(SMALL, 4, 4);
  const lazy = choiceOf(SMALL, 4, 4);
  const all = ways.all().flatMap((way) => ways.price(way) ?? []);
  const axes = new Set(all.map((way) => JSON.stringify(way.axes)));
  assert.ok(axes.size >= 5, `${[...axes].join()} are ways`);
  const needs = all.map(({ need }) => need).toSorted((a, b) => a - b);
  for (const part of [0, 0.2, 0.5, 1]) {
    const memory = needs[Math.floor(part * (needs.length - 1))] as number;
    Object.assign(lazy.machine, { memory });
    const fitting = all.filter(({ need }) => need <= memory);
    const fastest = Math.min(...fitting.map(({ cost }) => cost.seconds));
    const found = lazy.ways.find(Number.POSITIVE_INFINITY);
    assert.ok(found !== undefined && found.need <= memory);
    assert.ok(found.cost.seconds <= 1.05 * fastest, `${JSON.stringify(found)}, ${fastest} s`);
    // Nothing is found that takes longer than it may.
    assert.equal(lazy.ways.find(fastest), undefined);
  }
});

/** Compares the memory of ways with that of the programs of all ranks. @returns the ways */
function compareMemory(
  { step, topology, ways, stated }: ReturnType<typeof choiceOf>,
  isWanted: (way: DividedWay) => boolean,
): DividedWay[] {
  return ways.all().filter((way) => {
    if (way.again || !isWanted(way)) return false;
    const priced = ways.price(way);
    if (priced === undefined) return false;
    const { mesh, strategies } = stated(way);
    const divided = applyStrategies(strategies, step, mesh);
    const ranks = Array.from({ length: 4 }, (_, rank) => {
      const resident = new Map(
        residentMemory(lower(divided, { ground: { mesh, topology }, rank, optimizer })),
      );
      resident.delete("the process itself");
      return planned(resident);
    });
    const most = Math.max(...ranks);
    const predicted = totalOf(priced.cost.memory);
    const what = `${JSON.stringify(way)}: ${predicted} predicted, ${most} planned`;
    assert.ok(Math.abs(predicted - most) <= 0.1 * most, what);
    return true;
  });
}

test("the memory of pipelines, with one and with several stages a rank, is that of their programs within a tenth", () => {
  const found = compareMemory(
    choiceOf(DEEP, 4, 8),
    ({ axes: { tensor, pipeline, context }, sharing }) =>
      sharing.zero === 0 && pipeline === 4 && tensor * context === 1,
  );
  const timetables = found.map(({ timetable }) => timetable);
  assert.deepEqual(timetables, [undefined, "interleaved", "zb-v"]);
});

test("workers that share experts are a way for a model that has some, with the memory of their programs", () => {
  const isOfExperts = ({ axes, sharing }: DividedWay) => axes.expert > 1 && sharing.zero === 0;
  const choice = choiceOf(EXPERTS, 4, 4, { batch: 4 });
  const found = compareMemory(choice, (way) => isOfExperts(way) && way.axes.expert === 4);
  assert.equal(found.length, 1);
  // Four experts are not shared out evenly among three.
  assert.ok(
    !choiceOf(EXPERTS, 6, 6, { batch: 6 })
      .ways.all()
      .some(({ axes }) => axes.expert % 3 === 0),
  );
  assert.ok(
    !choiceOf(DEEP, 4, 4)
      .ways.all()
      .some(({ axes }) => axes.expert > 1),
  );
});

test("ranks of a pipeline wait as the papers of its timetables say", () => {
  const free = { latency: 0, bytesPerSecond: 1e15 };
  const { ways } = choiceOf(DEEP, 4, 8, { within: free });
  const [ranks, microBatches] = [4, 8];
  const formulas = {
    "zb-h1": 3 * microBatches,
    interleaved: 2 * microBatches,
    "zb-v": 6 * microBatches,
  };
  const isWanted = ({ axes, sharing, again }: DividedWay) =>
    axes.pipeline === ranks && sharing.zero === 0 && !again;
  for (const way of ways.all().filter(isWanted)) {
    const priced = ways.price(way);
    assert.ok(priced !== undefined);
    const { timetable = "zb-h1" } = way;
    const turns = formulas[timetable as keyof typeof formulas];
    const wanted = (ranks - 1) / (turns + ranks - 1);
    const waiting = priced.cost.exposed / priced.cost.seconds;
    const what = `${timetable}: ${waiting}, and by the formula ${wanted}`;
    assert.ok(Math.abs(waiting - wanted) < 0.03, what);
  }
});

test("ranks that know the same choose the same, whatever they have planned before", () => {
  const chosen = [0, 1].map((rank) => {
    const { machine: slow, topology } = choiceOf(WIDE, 2, 2);
    const machine = { ...slow, flopsPerSecond: 8e10 };
    const choose = (memory: number) =>
      chooseParallel({
        topology,
        step: stepOf(WIDE, 2),
        optimizer,
        machine: { ...machine, memory },
        buckets: { bucketBytes: 1e6 },
      });
    if (rank === 1) choose(104e6);
    const { stated, reason } = choose(101e6);
    return { stated, reason };
  });
  assert.deepEqual(chosen[0], chosen[1]);
  assert.match(
    String(chosen[0]?.reason),
    /^Pipeline 2, because zero 1 would take 103 MB a worker of the 101 MB that it has \(data: .*, zero 3: .*\); pipeline 2 takes \d+ MB\.$/,
  );
});

/** The loss of each step, of each rank. */
async function losses(ranks: number, microBatches: number, memory = Number.POSITIVE_INFINITY) {
  const simulated = ranks === 1 ? undefined : simulatedRanks(engine, ranks, true);
  const model = WIDE.build({ batch: 2 / microBatches, mode: "train" });
  const trainers = await Promise.all(
    Array.from({ length: ranks }, (_, rank) => {
      const group = simulated?.groups[rank];
      const own = group && { group, adapt: false, room: { memory, lanes: 1 } };
      return createTrainer({ engine, model, optimizer, clip: 1, microBatches, ranks: own });
    }),
  );
  const all = await Promise.all(
    trainers.map(async (trainer) => {
      const found: number[] = [];
      for (let step = 0; step < 4; step++) {
        const positions = { start: 2 * step, end: 2 * step + 2 };
        const own = trainer.ownPositions(positions).flatMap(({ start, end }) => {
          return Array.from({ length: end - start }, (_, at) => start + at);
        });
        const fill: FillBatch = (into) => {
          for (const tensor of Object.values(into)) {
            const values = own.flatMap((at) =>
              Array.from({ length: 8 }, (_, i) => (3 * at + i) % 12),
            );
            tensor.bytes.set(tensorFrom(tensor.dtype, tensor.shape, values).bytes);
          }
        };
        found.push((await trainer.step({ positions, fill })).loss);
      }
      return found;
    }),
  );
  const { mesh, reason } = (trainers[0] as (typeof trainers)[number]).planned.parallel;
  for (const trainer of trainers) trainer.close();
  await simulated?.close();
  return { all, reason, axes: mesh.axes.map(({ name, size }) => `${name} ${size}`).join() };
}

test("a model too large for data and ZeRO gets a pipeline, with the losses of one process", async () => {
  const alone = await losses(1, 2);
  const { all, axes, reason } = await losses(2, 2, 101e6);
  assert.equal(axes, "pipeline 2", reason);
  for (const own of all) assert.deepEqual(own, alone.all[0]);
});

test("two workers for one micro-batch divide the matrices, with the losses of one process", async () => {
  const alone = await losses(1, 1);
  const { all, axes, reason } = await losses(2, 1);
  assert.equal(axes, "tensor 2", reason);
  assert.match(reason, /^2 workers for 1 micro-batch: tensor 2, /);
  const wanted = alone.all[0] as number[];
  for (const own of all) {
    for (const [at, loss] of own.entries()) {
      const near = Math.abs(loss - (wanted[at] as number)) <= 1e-4 * Math.abs(loss);
      assert.ok(near, `${own.join()} and ${wanted.join()}`);
    }
  }
});
