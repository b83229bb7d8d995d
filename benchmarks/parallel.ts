/**
 * Two workers that divide a model, against two that share its samples, and against PyTorch's tensor
 * parallelism and pipeline over Gloo.
 */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { measureGroup } from "./group.ts";
import { type GptSizes, torchPipeline, torchTensor } from "./peers.ts";
import { type Benchmark, compared, median, type Row } from "./report.ts";
import { ratioOf, takeTurns } from "./rounds.ts";
import type { ScalingMeasurement, ScalingRequest } from "./scaling-child.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const MICRO_BATCHES = 8;
const REPEATS = 2;
const ROUNDS = 5;
const MODELS: readonly (readonly [name: string, sizes: GptSizes])[] = [
  [
    "6 layers, width 384",
    { layers: 6, width: 384, heads: 6, context: 256, batch: 8, vocabulary: 65 },
  ],
  [
    "4 layers, width 1,024",
    { layers: 4, width: 1024, heads: 16, context: 256, batch: 8, vocabulary: 65 },
  ],
];

export const parallel: Benchmark = {
  name: "parallel",
  question: "GPT training steps in tokens/s on two workers that divide the model",
  run: async () => {
    const rows: Row[] = [];
    const missing = new Set<string>();
    for (const [name, sizes] of MODELS) {
      const found = await measure(name, sizes);
      rows.push(...found.rows);
      for (const peer of found.missing) missing.add(peer);
    }
    return { rows, missing: [...missing] };
  },
};

interface Measured {
  readonly speed: number;
  readonly waiting: number;
}

/** How two workers divide a model, and against what that is measured. */
const WAYS = [
  {
    name: "tensor=2",
    request: { parallel: { tensor: 2 } },
    least: 0.85,
    peer: "PyTorch parallelize_module with Gloo",
    torch: torchTensor,
    waits: "in exchanges and other collectives",
  },
  {
    name: "pipeline=2",
    request: { parallel: { pipeline: 2 } },
    least: 0.9,
    peer: "PyTorch pipelining, 1F1B with Gloo",
    torch: torchPipeline,
    waits: "waiting for the other stage, and in collectives",
  },
  {
    name: "pipeline=2 by zb-h1+2",
    request: { parallel: { pipeline: 2 }, timetable: "zb-h1+2" },
    least: 0.9,
    peer: "PyTorch pipelining, 1F1B with Gloo",
    torch: torchPipeline,
    waits: "waiting for the other stage, and in collectives",
  },
] as const;
const FORMER = { parallel: { pipeline: 2 }, timetable: "1f1b" } as const;

async function measure(
  name: string,
  sizes: GptSizes,
): Promise<{ readonly rows: Row[]; readonly missing: readonly string[] }> {
  const tokens = sizes.batch * sizes.context;
  const speed = async (request: Request): Promise<Measured> => {
    const { seconds, waiting } = await workers(sizes, request);
    return { speed: tokens / seconds, waiting };
  };
  const peers = { sizes, threads: 1, repeats: REPEATS, workers: 2, microBatches: MICRO_BATCHES };
  const measures: Record<string, () => Promise<Measured | undefined>> = {
    data: () => speed({ parallel: { data: 2 } }),
    former: () => speed(FORMER),
  };
  for (const { name: way, request, peer, torch } of WAYS) {
    measures[way] = () => speed(request);
    measures[peer] = async () => {
      const found = torch(root, peers);
      return found === undefined ? undefined : { speed: found, waiting: 0 };
    };
  }
  const found = await takeTurns<Record<string, Measured>>(measures, ROUNDS);
  const speeds = (of: string) => (found[of] ?? []).map((one) => one.speed);
  const against = (way: string, peer: string, others: readonly number[], least: number) =>
    compared(
      {
        case: `${name}: ${way}, 2 workers of 1 thread`,
        value: median(speeds(way)),
        unit: "tokens/s",
        peer,
        peerValue: median(others),
        ratio: ratioOf(speeds(way), others),
        goal: `at least ${least}x`,
      },
      least,
    );
  const missing = new Set(
    WAYS.map(({ peer }) => peer).filter((peer) => speeds(peer).length < ROUNDS),
  );
  const rows = WAYS.flatMap(({ name: way, least, peer, waits }): Row[] => [
    against(way, "data=2", speeds("data"), least),
    ...(speeds(peer).length < ROUNDS ? [] : [against(way, peer, speeds(peer), 1)]),
    {
      case: `${name}: ${way}, ${waits}`,
      value: 100 * median((found[way] ?? []).map((one) => one.waiting)),
      unit: "% of a step",
    },
  ]);
  const zeroBubble = against("pipeline=2", "pipeline=2 by 1F1B", speeds("former"), 1);
  return {
    rows: [...rows, zeroBubble],
    missing: [...missing].map((peer) => `${peer} (LOCKSTEP_PYTHON)`),
  };
}

type Request = Pick<ScalingRequest, "parallel" | "timetable">;

async function workers(sizes: GptSizes, request: Request): Promise<ScalingMeasurement> {
  const shared = { sizes, microBatches: MICRO_BATCHES, repeats: REPEATS, threads: 1 };
  const found = await measureGroup({ ...shared, ...request }, 2);
  return {
    seconds: Math.max(...found.map(({ seconds }) => seconds)),
    waiting: Math.min(...found.map(({ waiting }) => waiting)),
  };
}
