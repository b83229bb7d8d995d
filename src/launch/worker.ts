/**
 * A worker of a run: a process that the launcher starts, with a rank. It ends when its launcher
 * does.
 */
import { createOrtEngine } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import { openJob, readJobFolder } from "../job/index.ts";
import { BEAT_MS } from "../membership/index.ts";
import { listenTcp } from "../net/index.ts";
import {
  type Assignment,
  errorMessage,
  type FromWorker,
  type ToWorker,
} from "../protocol/index.ts";
import {
  DiskFaults,
  FILES,
  openRunFolder,
  overrideRun,
  type Run,
  type TrainOptions,
  type TrainResult,
  train,
  type WeightsPlace,
} from "../run/index.ts";
import { type JsonlSink, jsonlSink } from "../telemetry/index.ts";
import { Generations } from "./generations.ts";
import { machineClock, startOfProcess } from "./machine-clock.ts";
import { ProgressMeter } from "./progress.ts";
import { endProcess, endWithParent, outliveOutput } from "./survive.ts";

/**
 * The longest that one may work alone while others wait. Those that have ended, stopped or fallen
 * silent are found by that.
 */
const DEADLINE_MS = 3_600_000;

const stop = new AbortController();
const diskFaults = new DiskFaults();
let generations: Generations | undefined;
let isDone = false;

function tell(message: FromWorker): Promise<void> {
  return new Promise((resolve) => {
    if (process.send === undefined) resolve();
    else process.send(message, () => resolve());
  });
}

async function work(job: Assignment): Promise<TrainResult["outcome"]> {
  const { threads, dump, roots, startedAt = startOfProcess() } = job;
  const opened = openJob(readJobFolder(job.job));
  // A job that comes from this machine was checked when it was opened or made.
  if (job.network !== undefined) opened.check();
  const run = overrideRun(opened.run, job.overrides);
  const folder = await openRunFolder(job.out, run.checkpoints);
  diskFaults.haunt(folder.checkpoints);
  const engine = createOrtEngine({ threads, ...(dump === undefined ? {} : { dump }) });
  // The worker that writes checkpoints writes figures too, because the launcher may be on another
  // machine, or end a step earlier. Only that worker has events.
  let metrics: JsonlSink | undefined;
  const options: TrainOptions = {
    engine,
    folder,
    baseDir: opened.baseIn(roots),
    roots,
    holds: opened.holds,
    beginning: job.beginning,
    changes: job.changes,
    signal: stop.signal,
    now: () => machineClock() - startedAt,
    onEvent: (event) => {
      metrics ??= figures(folder.file(FILES.metrics));
      metrics.sink(event);
      void tell({ kind: "event", event });
    },
  };
  try {
    return await inGenerations(job, run, options);
  } finally {
    metrics?.close();
    await engine.close();
  }
}

/** Trains with workers that come and go. */
async function inGenerations(
  { group, number, network, deadlineMs = DEADLINE_MS }: Assignment,
  run: Run,
  options: TrainOptions,
): Promise<TrainResult["outcome"]> {
  const { engine } = options;
  const send = (message: FromWorker) => void tell(message);
  // It listens at one port in all generations.
  const mark = network && group;
  const listener = network && (await listenTcp(network));
  const meter = new ProgressMeter(engine.runs);
  const { waits } = meter;
  const members = new Generations({ engine, group, deadlineMs, waits, tell: send, listener });
  generations = members;
  const beat = () => send({ kind: "beat", progress: meter.look(performance.now()) });
  const beats = setInterval(beat, BEAT_MS).unref();
  try {
    const onWeights = (place: WeightsPlace) => send({ kind: "weights", ...place });
    const leads = number === 0;
    return (await train(run, { ...options, members, group, leads, mark, onWeights })).outcome;
  } finally {
    clearInterval(beats);
    meter.close();
    listener?.close();
  }
}

function figures(path: string): JsonlSink {
  return jsonlSink(path, {
    now: Date.now,
    onTrouble: (text) => void tell({ kind: "event", event: { type: "notice", text } }),
  });
}

async function runJob(job: Assignment): Promise<void> {
  try {
    await tell({ kind: "done", outcome: await work(job) });
  } catch (error) {
    await tell({ kind: "error", error: errorMessage(error) });
    process.exitCode = 1;
  }
  isDone = true;
  // What a stop has left behind, such as the opening of data, is not waited for.
  endProcess(Number(process.exitCode ?? 0));
}

function askToStop(): void {
  stop.abort(new LockstepError("ABORTED", "A stop was asked for."));
}

/**
 * A worker that comes and goes leaves alone, if the launcher does not stop the run. Without it, the
 * others could not go on: all stop after the same step.
 */
function askToLeave(): void {
  if (generations === undefined) askToStop();
  else void tell({ kind: "drain" });
}

/** Another worker has ended the run. What was done is saved, and nobody is waited for. */
function stopAlone(): void {
  askToStop();
  generations?.end(new LockstepError("ABORTED", "Another worker has ended the run."));
}

outliveOutput();
endWithParent();
process.on("uncaughtException", (error) => {
  process.stderr.write(`${error.stack ?? String(error)}\n`);
  endProcess(1);
});
process.on("SIGTERM", askToLeave);
// Not process.exit: the engine may be in the middle of a run on another thread.
process.on("disconnect", () => {
  if (!isDone) process.kill(process.pid, "SIGKILL");
});
process.on("message", (message: ToWorker) => {
  switch (message.kind) {
    case "job":
      void runJob(message.job);
      break;
    case "form":
      generations?.form(message);
      break;
    case "disk-fault":
      diskFaults.arm(message.fault);
      break;
    case "link-fault":
      generations?.failLinks(message.fault, message.ms);
      break;
    case "history":
      generations?.tell(message.history);
      break;
    case "regroup":
      generations?.regroup(message.generation, message.when);
      break;
    case "leave":
      generations?.leave();
      break;
    case "stop":
      if (message.alone === true) stopAlone();
      else askToStop();
      break;
  }
});
