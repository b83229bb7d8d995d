/**
 * How long does the cost model say that a step takes here, and how long does it take? The speed of a
 * worker is measured in each round, by two processes that train by themselves at the same time; all
 * else is what `lockstep plan` assumes.
 */
import { evenTopology } from "../src/mesh/index.ts";
import {
  type Axes,
  chooseParallel,
  comparison,
  type DividedWay,
  DividedWays,
} from "../src/parallel/index.ts";
import { buildStep, MEMORY_SPEED, stepFacts } from "../src/plan/index.ts";
import { measureAlone, measureGroup } from "./group.ts";
import type { GptSizes } from "./peers.ts";
import { type Benchmark, median, type Row } from "./report.ts";
import { takeTurns } from "./rounds.ts";
import { trainedGpt } from "./steps.ts";

const MODELS: readonly (readonly [name: string, sizes: GptSizes])[] = [
  [
    "6 layers, width 384",
    { layers: 6, width: 384, heads: 6, context: 256, batch: 8, vocabulary: 65 },
  ],
  [
    "4 layers, width 768",
    { layers: 4, width: 768, heads: 12, context: 128, batch: 8, vocabulary: 65 },
  ],
];
const WAYS: readonly Axes[] = [{ data: 2 }, { pipeline: 2 }, { tensor: 2 }, { context: 2 }];
const WORKERS = 2;
const [MICRO_BATCHES, REPEATS, ROUNDS] = [8, 3, 5];
const GOAL = 0.1;

export const predictedHere: Benchmark = {
  name: "predicted-here",
  question: "what the cost model predicts of steps of two workers on this machine",
  run: async () => {
    const rows: Row[] = [];
    for (const [name, sizes] of MODELS) rows.push(...(await measure(name, sizes)));
    return { rows, missing: [] };
  },
};

async function measure(name: string, sizes: GptSizes): Promise<Row[]> {
  const shared = { sizes, microBatches: MICRO_BATCHES, repeats: REPEATS, threads: 1 };
  const slowest = (found: readonly { readonly seconds: number }[]) =>
    Math.max(...found.map(({ seconds }) => seconds));
  const measures: Record<string, () => Promise<number>> = {
    alone: async () => slowest(await measureAlone(shared, WORKERS)),
  };
  for (const parallel of WAYS) {
    measures[textOf(parallel)] = async () =>
      slowest(await measureGroup({ ...shared, parallel }, WORKERS));
  }
  const found = await takeTurns<Record<string, number>>(measures, ROUNDS);
  return WAYS.map((parallel): Row => {
    const took = found[textOf(parallel)] as number[];
    const predictions = (found["alone"] as number[]).map((alone) =>
      predictedSeconds(sizes, parallel, alone),
    );
    const ratio = median(predictions.map((seconds, round) => seconds / (took[round] as number)));
    return {
      case: `${name}: ${textOf(parallel)}`,
      value: median(predictions),
      unit: "s predicted for a step",
      peer: "measured",
      peerValue: median(took),
      ratio,
      goal: "0.9 to 1.1",
      reached: Math.abs(ratio - 1) <= GOAL,
    };
  });
}

function textOf(axes: Axes): string {
  return Object.entries(axes)
    .map(([axis, size]) => `${axis}=${size}`)
    .join(",");
}

/** @param alone the seconds of a step of one process */
function predictedSeconds(sizes: GptSizes, parallel: Axes, alone: number): number {
  const { model, optimizer, microBatches, clip } = trainedGpt(sizes, MICRO_BATCHES);
  const step = buildStep({ model, optimizer, microBatches, clip });
  const facts = stepFacts(step, optimizer);
  const updated = (2 * facts.parameters + facts.gradients + 2 * facts.slots) / MEMORY_SPEED;
  const flopsPerSecond = (microBatches * facts.flops) / (alone - updated);
  const topology = evenTopology(WORKERS, 1);
  const link = { latency: 1e-4, bytesPerSecond: 1e9 };
  const machine = { memory: Number.POSITIVE_INFINITY, lanes: 1, flopsPerSecond, link, topology };
  const buckets = { bucketBytes: 1e6 };
  const whole = { ...machine, ...buckets };
  const { data = 1, context = 1, tensor = 1, pipeline = 1 } = parallel;
  if (data === WORKERS) {
    const [usual] = comparison({ facts, machine: whole }).filter(
      ({ sharing }) => sharing.zero === 0,
    );
    return usual?.cost.seconds ?? Number.NaN;
  }
  const dividing = chooseParallel({ topology, step, optimizer, machine, parallel, buckets });
  const ways = new DividedWays({
    step,
    facts,
    optimizer,
    machine: whole,
    isRecomputeStated: false,
    isTimetableStated: false,
    strategiesOf: () => dividing.strategies,
  });
  const axes = { context, expert: 1, tensor, pipeline };
  const sharing = { data: 1, shard: 1, zero: 0 } as const;
  const way: DividedWay = { axes, sharing, again: false };
  return ways.price(way)?.cost.seconds ?? Number.NaN;
}
