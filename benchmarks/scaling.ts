/** How much faster are two workers than one, and than one with two threads? How much of a step do they wait? */
import { execFile, spawn } from "node:child_process";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type GptSizes, torchDdp } from "./peers.ts";
import { type Benchmark, compared, type Row } from "./report.ts";
import type { ScalingMeasurement, ScalingRequest } from "./scaling-child.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const SIZES: GptSizes = { layers: 6, width: 384, heads: 6, context: 256, batch: 8, vocabulary: 65 };
const MICRO_BATCHES = 4;
const REPEATS = 5;
const ROUNDS = 3;
const SLOW_ROUNDS = 2;

export const scaling: Benchmark = {
  name: "scaling",
  question: "GPT training steps in tokens/s on two workers, against one, on this machine",
  run: measureAll,
};

interface Case {
  /** Steps of the whole batch a second, of all processes together. */
  readonly speed: number;
  readonly waiting: number;
}

async function measureAll(): Promise<{ rows: Row[]; missing: string[] }> {
  // The machine's speed changes: each case is measured in turn, and its best counts.
  const best = new Map<string, Case>();
  const cases: Record<string, () => Promise<Case>> = {
    one: () => alone(1),
    shared: () => workers(),
    anyOrder: () => workers({ reproducible: false }),
    threads: () => alone(2),
    apart: independent,
  };
  let torch: number | undefined;
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, measure] of Object.entries(cases)) {
      const found = await measure();
      if (found.speed > (best.get(name)?.speed ?? 0)) best.set(name, found);
    }
    const options = { sizes: SIZES, threads: 1, repeats: REPEATS, workers: 2 };
    const peer = torchDdp(root, options);
    if (peer !== undefined) torch = Math.max(torch ?? 0, peer);
  }
  const tokens = (name: string) => (best.get(name)?.speed ?? 0) * SIZES.batch * SIZES.context;
  const row = { case: "2 workers of 1 thread", value: tokens("shared"), unit: "tokens/s" };
  const waiting = 100 * (best.get("shared")?.waiting ?? 1);
  const rows = [
    compared(
      { ...row, peer: "1 worker of 1 thread", peerValue: tokens("one"), goal: "at least 1.95x" },
      1.95,
    ),
    compared(
      {
        ...row,
        peer: "2 processes that share nothing",
        peerValue: tokens("apart"),
        goal: "at least 0.97x",
      },
      0.97,
    ),
    compared(
      {
        ...row,
        peer: "1 worker of 2 threads",
        peerValue: tokens("threads"),
        goal: "at least 1.0x",
      },
      1,
    ),
    compared(
      {
        ...row,
        peer: "with reproducible: false",
        peerValue: tokens("anyOrder"),
        goal: "at least 0.97x",
      },
      0.97,
    ),
    {
      case: "waiting in collectives",
      value: waiting,
      unit: "% of a step",
      goal: "under 2%",
      reached: waiting < 2,
    },
  ];
  rows.push(await besideABusyLoop());
  if (torch === undefined) return { rows, missing: ["PyTorch (Debian's python3-torch)"] };
  const peer = { peer: "PyTorch DDP with Gloo", peerValue: torch, goal: "at least 2x" };
  return { rows: [...rows, compared({ ...row, ...peer }, 2)], missing: [] };
}

const shared = { sizes: SIZES, microBatches: MICRO_BATCHES, repeats: REPEATS };

async function alone(threads: number): Promise<Case> {
  const { seconds } = await child({ ...shared, threads });
  return { speed: 1 / seconds, waiting: 0 };
}

async function independent(): Promise<Case> {
  const both = await Promise.all([0, 1].map(() => child({ ...shared, threads: 1 })));
  return { speed: both.reduce((sum, { seconds }) => sum + 1 / seconds, 0), waiting: 0 };
}

async function workers(request: Partial<ScalingRequest> = {}, pinned = false): Promise<Case> {
  const name = `lockstep-bench-${process.pid}-${Date.now()}`;
  const found = await Promise.all(
    [0, 1].map((rank) => {
      const group = { name, rank, size: 2 };
      return child({ ...shared, ...request, threads: 1, group }, pinned ? rank : undefined);
    }),
  );
  return {
    speed: 1 / Math.max(...found.map(({ seconds }) => seconds)),
    waiting: Math.min(...found.map(({ waiting }) => waiting)),
  };
}

/** Two workers of one core each, one of which it shares with a loop that never ends. */
async function besideABusyLoop(): Promise<Row> {
  const name = "2 workers, one beside a busy loop";
  if (process.platform !== "linux" || cpus().length < 2) {
    return { case: `${name} (needs Linux and two cores)`, value: Number.NaN, unit: "tokens/s" };
  }
  const busy = spawn("taskset", ["-c", "1", process.execPath, "-e", "for (;;);"]);
  try {
    // Enough steps for the decision to be taken and to settle.
    const request = { microBatches: SIZES.batch, warm: 9 };
    let [best, ideal] = [0, 0];
    for (let round = 0; round < SLOW_ROUNDS; round++) {
      const both = await Promise.all(
        [0, 1].map((core) => child({ ...shared, ...request, threads: 1, warm: 2 }, core)),
      );
      ideal = Math.max(
        ideal,
        both.reduce((sum, { seconds }) => sum + 1 / seconds, 0),
      );
      best = Math.max(best, (await workers(request, true)).speed);
    }
    const tokens = SIZES.batch * SIZES.context;
    return compared(
      {
        case: name,
        value: best * tokens,
        unit: "tokens/s",
        peer: "the sum of both speeds",
        peerValue: ideal * tokens,
        goal: "at least 0.85x",
      },
      0.85,
    );
  } finally {
    busy.kill("SIGKILL");
  }
}

/** @param core the only one that the process may run on */
async function child(request: ScalingRequest, core?: number): Promise<ScalingMeasurement> {
  const entry = join(root, "build/benchmarks/scaling-child.js");
  const pin = core === undefined ? [] : ["taskset", "-c", String(core)];
  const node = [process.execPath, entry, JSON.stringify(request)];
  const { stdout } = await promisify(execFile)("env", [...pin, ...node]);
  return JSON.parse(stdout) as ScalingMeasurement;
}
