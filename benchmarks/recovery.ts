/**
 * How long does a run stand still when one of its workers is killed, is stopped, or joins? Times are
 * beyond that of a step of all workers in the same run.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { type GptSizes, torchElastic } from "./peers.ts";
import { loseTheCoordinator } from "./recovery-coordinator.ts";
import { type Moment, WatchedRun, weightsIn, workerProcesses, writeRun } from "./recovery-run.ts";
import { type Benchmark, median, type Row } from "./report.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const SIZES: GptSizes = { layers: 6, width: 384, heads: 6, context: 256, batch: 8, vocabulary: 65 };
/** 43 million parameters: with the slots of AdamW 516 MB of state. */
const LARGE: GptSizes = { ...SIZES, width: 768, heads: 12, context: 32 };
const BYTES_OF_STATE = 12; // a parameter with the two slots of AdamW
const WORKERS = 4;
const [KILLS, STOPS, PEER_KILLS, LARGE_JOINS] = [20, 5, 5, 3];
/** Steps of all workers before the next is lost. */
const CALM_STEPS = 5;

export const recovery: Benchmark = {
  name: "recovery",
  question:
    "How long does a run of 4 workers stand still when one is killed, is stopped, or joins?",
  run: measureAll,
};

async function measureAll(): Promise<{ rows: Row[]; missing: string[] }> {
  if (process.platform !== "linux")
    return { rows: [], missing: ["Linux, for its list of processes"] };
  const folder = mkdtempSync(join(tmpdir(), "lockstep-bench-"));
  try {
    const lost = await loseWorkers(folder);
    const coordinator = await loseTheCoordinator(join(folder, "hosts"), join(folder, "job"));
    const rows = [...lost.rows, ...coordinator, ...(await joinLarge(join(folder, "large")))];
    const options = { sizes: SIZES, threads: 1, repeats: 1, workers: WORKERS, kills: PEER_KILLS };
    const torch = await torchElastic(root, options);
    if (torch === undefined) return { rows, missing: ["PyTorch (LOCKSTEP_PYTHON)"] };
    const [value, peerValue] = [lost.recovery, median(torch.seconds) - torch.step];
    const beside: Row = {
      case: "kill -9 of a worker, to the next step",
      value,
      unit: "s beyond a step",
      peer: `torchrun --max-restarts (steps of ${torch.step.toFixed(2)} s)`,
      peerValue,
      ratio: value / peerValue,
    };
    return { rows: [...rows, beside], missing: [] };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Kills and stops workers of one run, and compares its weights with those of a run of one worker. */
async function loseWorkers(folder: string): Promise<{ rows: Row[]; recovery: number }> {
  const job = await writeRun(folder, SIZES);
  const out = join(folder, "out");
  const run = new WatchedRun({ job, out, workers: WORKERS, threads: 1 });
  const kills = await lose(run, "SIGKILL", KILLS);
  const stops = await lose(run, "SIGSTOP", STOPS);
  await run.end();
  const { steps } = run;
  const alone = new WatchedRun({ job, out: join(folder, "alone"), workers: 1, threads: 2, steps });
  await alone.finished();
  const isSame = (await weightsIn(out)) === (await weightsIn(join(folder, "alone")));
  const step = stepOf(run.moments);
  const killed = kills.map((loss) => partsOf(loss, step));
  const recovery = median(killed.map(({ all }) => all));
  const found = median(stops.map((loss) => partsOf(loss, step).found));
  const stopped = median(stops.map((loss) => partsOf(loss, step).all));
  const part = (name: string, value: number): Row => ({ case: name, value, unit: "s" });
  const rows: Row[] = [
    part(`a step of ${WORKERS} workers`, step),
    within(`kill -9 of a worker, to the next step (median of ${KILLS})`, recovery, 1),
    part("  found", median(killed.map((parts) => parts.found))),
    part("  until the next generation is formed", median(killed.map((parts) => parts.formed))),
    part("  until the next step, beyond a step", median(killed.map((parts) => parts.committed))),
    part("  the longest of all", Math.max(...killed.map(({ all }) => all))),
    within(`SIGSTOP of a worker, to the next step (median of ${STOPS})`, stopped, 3),
    part("  found", found),
    ...joinRows(run, step),
    {
      case: `bits after ${steps} steps and ${KILLS + STOPS} lost workers: those of 1 worker`,
      value: Number(isSame),
      unit: "(1: equal)",
      goal: "1",
      reached: isSame,
    },
  ];
  return { rows, recovery };
}

/** Workers of a larger model join. */
async function joinLarge(folder: string): Promise<Row[]> {
  const job = await writeRun(folder, LARGE);
  const run = new WatchedRun({ job, out: join(folder, "out"), workers: WORKERS, threads: 1 });
  await lose(run, "SIGKILL", LARGE_JOINS);
  await run.end();
  return joinRows(run, stepOf(run.moments));
}

function joinRows(run: WatchedRun, step: number): Row[] {
  const pauses = joinPauses(run.moments).map((seconds) => seconds - step);
  const megabytes = Math.round((run.parameters * BYTES_OF_STATE) / 1e6);
  const of = `median of ${pauses.length}`;
  return [
    within(`a worker joins with ${megabytes} MB of state (${of})`, median(pauses), 1),
    { case: "  the longest of all", value: Math.max(...pauses), unit: "s" },
  ];
}

function within(name: string, value: number, most: number): Row {
  const goal = `under ${most} s`;
  return { case: name, value, unit: "s beyond a step", goal, reached: value < most };
}

interface Loss {
  readonly at: number;
  /** What the run told afterwards. */
  readonly moments: readonly Moment[];
}

/** Loses workers, one after the other, each after the last was replaced. */
async function lose(
  run: WatchedRun,
  signal: "SIGKILL" | "SIGSTOP",
  count: number,
): Promise<Loss[]> {
  const losses: Loss[] = [];
  for (let i = 0; i < count; i++) {
    await calm(run);
    // At another time of a step each time, by the golden ratio.
    await delay(1000 * stepOf(run.moments) * ((i * 0.618) % 1));
    const from = run.moments.length;
    const at = performance.now();
    // The oldest, which is rank 0, and the second by turns: they were of use, so they are replaced at once.
    process.kill(workerProcesses()[i % 2] as number, signal);
    const done = await run.next(from, ({ kind }) => kind === "generation");
    await run.next(done, ({ kind }) => kind === "step");
    losses.push({ at, moments: run.moments.slice(from) });
  }
  await calm(run);
  return losses;
}

/** Waits until all workers have made some steps together. */
async function calm(run: WatchedRun): Promise<void> {
  const isFull = ({ moments }: WatchedRun) => {
    const last = moments.findLast(({ kind }) => kind === "generation");
    return last === undefined || (last.kind === "generation" && last.workers === WORKERS);
  };
  for (let index = run.moments.length - 1; ; ) {
    index = await run.pass(index, CALM_STEPS);
    if (isFull(run)) return;
    index = await run.next(index, (told) => told.kind === "generation" && told.workers === WORKERS);
  }
}

interface Parts {
  readonly found: number;
  readonly formed: number;
  readonly committed: number;
  readonly all: number;
}

/** The seconds of a recovery. */
function partsOf({ at, moments }: Loss, step: number): Parts {
  const lost = timeOf(moments, 0, "lost");
  const formed = timeOf(moments, moments.indexOf(lost), "generation");
  const committed = timeOf(moments, moments.indexOf(formed), "step");
  return {
    found: (lost.at - at) / 1000,
    formed: (formed.at - lost.at) / 1000,
    committed: (committed.at - formed.at) / 1000 - step,
    all: (committed.at - at) / 1000 - step,
  };
}

function timeOf(moments: readonly Moment[], from: number, kind: Moment["kind"]): Moment {
  const found = moments.slice(from).find((told) => told.kind === kind);
  if (found === undefined) throw new Error(`The run told of no ${kind}.`);
  return found;
}

/** The median seconds from a step to the next, where nothing else happened between. */
function stepOf(moments: readonly Moment[]): number {
  const times = moments.flatMap((told, index) => {
    const before = moments[index - 1];
    const isCalm =
      told.kind === "step" && before?.kind === "step" && workersAt(moments, index) === WORKERS;
    // The first step of a generation is not calm.
    return isCalm && moments[index - 2]?.kind === "step" ? [(told.at - before.at) / 1000] : [];
  });
  return median(times);
}

function workersAt(moments: readonly Moment[], index: number): number {
  const last = moments.slice(0, index).findLast(({ kind }) => kind === "generation");
  return last?.kind === "generation" ? last.workers : WORKERS;
}

/** The seconds between the steps before and after a worker has joined. */
function joinPauses(moments: readonly Moment[]): number[] {
  return moments.flatMap((told, index) => {
    if (told.kind !== "generation" || told.workers !== WORKERS) return [];
    const before = moments[index - 1];
    const after = moments[index + 1];
    if (before?.kind !== "step" || after?.kind !== "step") return [];
    return [(after.at - before.at) / 1000];
  });
}
