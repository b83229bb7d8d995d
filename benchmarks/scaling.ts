/**
 * How much faster are two workers than one, and than one with two threads? How long do they wait in
 * a step?
 */
import { execFile, spawn } from "node:child_process";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Revision } from "./against.ts";
import { type GptSizes, torchDdp } from "./peers.ts";
import { type Benchmark, type BenchmarkOptions, compared, median, type Row } from "./report.ts";
import { ratioOf, takeTurns } from "./rounds.ts";
import type { ScalingMeasurement, ScalingRequest } from "./scaling-child.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const SIZES: GptSizes = { layers: 6, width: 384, heads: 6, context: 256, batch: 8, vocabulary: 65 };
const MICRO_BATCHES = 4;
const REPEATS = 5;
const ROUNDS = 3;
const SLOW_ROUNDS = 3;
const TOKENS = SIZES.batch * SIZES.context;

export const scaling: Benchmark = {
  name: "scaling",
  question: "GPT training steps in tokens/s on two workers, against one, on this machine",
  comparesRevisions: true,
  run: measureAll,
};

interface Case {
  /** Steps of the whole batch per second, of all processes together. */
  readonly speed: number;
  readonly waiting: number;
}

async function measureAll({ against }: BenchmarkOptions): Promise<{
  rows: Row[];
  missing: string[];
}> {
  const before = <T>(measure: (folder: string) => Promise<T>) => against && measure(against.folder);
  const options = { sizes: SIZES, threads: 1, repeats: REPEATS, workers: 2 };
  const { torch, ...cases } = await takeTurns(
    {
      one: () => alone(1),
      oneBefore: () => before((folder) => alone(1, folder)),
      shared: () => workers(),
      sharedBefore: () => before((folder) => workers({}, { folder })),
      anyOrder: () => workers({ reproducible: false }),
      anyOrderBefore: () => before((folder) => workers({ reproducible: false }, { folder })),
      threads: () => alone(2),
      threadsBefore: () => before((folder) => alone(2, folder)),
      apart: independent,
      torch: async () => {
        const speed = torchDdp(root, options);
        return speed === undefined ? undefined : { speed: speed / TOKENS, waiting: 0 };
      },
    },
    ROUNDS,
  );
  const beside = (name: string, own: readonly Case[], peer: string, of: Case[], least: number) => {
    const speeds = (list: readonly Case[]) => list.map(({ speed }) => speed * TOKENS);
    return compared(
      {
        case: name,
        value: median(speeds(own)),
        unit: "tokens/s",
        peer,
        peerValue: median(speeds(of)),
        ratio: ratioOf(speeds(own), speeds(of)),
        goal: `at least ${least}x`,
      },
      least,
    );
  };
  const { one, shared, anyOrder, threads, apart } = cases;
  const waiting = 100 * median(shared.map((found) => found.waiting));
  const two = "2 workers of 1 thread";
  const rows: Row[] = [
    beside(two, shared, "1 worker of 1 thread", one, 1.95),
    beside(two, shared, "2 processes that share nothing", apart, 0.97),
    beside(two, shared, "1 worker of 2 threads", threads, 1),
    beside(two, shared, "with reproducible: false", anyOrder, 0.97),
    {
      case: "waiting in collectives",
      value: waiting,
      unit: "% of a step",
      goal: "under 2%",
      reached: waiting < 2,
    },
  ];
  if (against !== undefined) {
    rows.push(
      beside(two, shared, against.name, cases.sharedBefore, 0.98),
      beside("1 worker of 1 thread", one, against.name, cases.oneBefore, 0.98),
      beside("1 worker of 2 threads", threads, against.name, cases.threadsBefore, 0.98),
      beside("reproducible: false", anyOrder, against.name, cases.anyOrderBefore, 0.98),
    );
  }
  rows.push(...(await besideABusyLoop(against)));
  if (torch.length < ROUNDS) return { rows, missing: ["PyTorch (LOCKSTEP_PYTHON)"] };
  return { rows: [...rows, beside(two, shared, "PyTorch DDP with Gloo", torch, 2)], missing: [] };
}

const shared = { sizes: SIZES, microBatches: MICRO_BATCHES, repeats: REPEATS };

async function alone(threads: number, folder = root): Promise<Case> {
  const { seconds } = await child({ ...shared, threads }, { folder });
  return { speed: 1 / seconds, waiting: 0 };
}

async function independent(): Promise<Case> {
  const both = await Promise.all([0, 1].map(() => child({ ...shared, threads: 1 })));
  return { speed: both.reduce((sum, { seconds }) => sum + 1 / seconds, 0), waiting: 0 };
}

interface Where {
  /** The folder of the built revision. Default: this one. */
  readonly folder?: string;
  /** Whether each worker has a core of its own. Default: false. */
  readonly pinned?: boolean;
}

async function workers(request: Partial<ScalingRequest> = {}, where: Where = {}): Promise<Case> {
  const { folder = root, pinned = false } = where;
  const name = `lockstep-bench-${process.pid}-${Date.now()}`;
  const found = await Promise.all(
    [0, 1].map((rank) => {
      const group = { name, rank, size: 2 };
      const core = pinned ? rank : undefined;
      return child({ ...shared, ...request, threads: 1, group }, { folder, core });
    }),
  );
  return {
    speed: 1 / Math.max(...found.map(({ seconds }) => seconds)),
    waiting: Math.min(...found.map(({ waiting }) => waiting)),
  };
}

/**
 * Measures two workers with one core each, one of which shares its core with a loop that never
 * ends.
 */
async function besideABusyLoop(against: Revision | undefined): Promise<Row[]> {
  const name = "2 workers, one beside a busy loop";
  if (process.platform !== "linux" || cpus().length < 2) {
    return [{ case: `${name} (needs Linux and two cores)`, value: Number.NaN, unit: "tokens/s" }];
  }
  const busy = spawn("taskset", ["-c", "1", process.execPath, "-e", "for (;;);"]);
  try {
    // The shares change when the evidence pays for it (`train/pacing.ts`), after 12 steps or so.
    const request = { microBatches: SIZES.batch, warm: 20 };
    const together = async (folder: string) =>
      (await workers(request, { folder, pinned: true })).speed * TOKENS;
    const { own, before, ideal } = await takeTurns(
      {
        own: () => together(root),
        before: () => against && together(against.folder),
        ideal: async () => {
          const both = [0, 1].map((core) =>
            child({ ...shared, ...request, threads: 1, warm: 2 }, { core }),
          );
          return (await Promise.all(both)).reduce((sum, { seconds }) => sum + TOKENS / seconds, 0);
        },
      },
      SLOW_ROUNDS,
    );
    const beside = (peer: string, values: readonly number[], least: number) =>
      compared(
        {
          case: name,
          value: median(own),
          unit: "tokens/s",
          peer,
          peerValue: median(values),
          ratio: ratioOf(own, values),
          goal: `at least ${least}x`,
        },
        least,
      );
    const rows = [beside("the sum of both speeds", ideal, 0.85)];
    return against === undefined ? rows : [...rows, beside(against.name, before, 0.98)];
  } finally {
    busy.kill("SIGKILL");
  }
}

interface Process {
  readonly folder?: string;
  /** The only core that the process may run on. Default: all. */
  readonly core?: number | undefined;
}

async function child(
  request: ScalingRequest,
  { folder = root, core }: Process = {},
): Promise<ScalingMeasurement> {
  const entry = join(folder, "build/benchmarks/scaling-child.js");
  const pin = core === undefined ? [] : ["taskset", "-c", String(core)];
  const node = [process.execPath, entry, JSON.stringify(request)];
  const { stdout } = await promisify(execFile)("env", [...pin, ...node]);
  return JSON.parse(stdout) as ScalingMeasurement;
}
