/**
 * A worker of a run: a process that the launcher starts, with a rank. It ends when its launcher
 * does.
 */
import { Group, measureCosts } from "../collectives/index.ts";
import { createOrtEngine } from "../engine/index.ts";
import { assert, LockstepError } from "../errors.ts";
import { openJob, readJobFolder } from "../job/index.ts";
import { BEAT_MS } from "../membership/index.ts";
import { listenTcp, parseAddress } from "../net/index.ts";
import {
  type Assignment,
  errorMessage,
  type FromWorker,
  type Meeting,
  type ToWorker,
} from "../protocol/index.ts";
import {
  FILES,
  openRunFolder,
  overrideRun,
  type Run,
  type TrainOptions,
  type TrainResult,
  train,
} from "../run/index.ts";
import { type JsonlSink, jsonlSink } from "../telemetry/index.ts";
import { joinNodes, joinSharedMemory, joinTcp, type Transport } from "../transport/index.ts";
import { Generations } from "./generations.ts";
import { endProcess, endWithParent, outliveOutput } from "./survive.ts";

/**
 * The longest that one may work alone while others wait. Those that have ended, stopped or fallen
 * silent are found by that.
 */
const DEADLINE_MS = 3_600_000;
/** All doors are open when their addresses are told: who cannot reach one by then never will. */
const REACH_MS = 8000;

const stop = new AbortController();
/** Ends a meeting that cannot come about any more. */
const meeting = new AbortController();
let generations: Generations | undefined;
let isDone = false;
let hasMet = false;
let tellAddresses: (addresses: readonly string[]) => void = () => undefined;
const told = new Promise<readonly string[]>((resolve) => {
  tellAddresses = resolve;
});

function tell(message: FromWorker): Promise<void> {
  return new Promise((resolve) => {
    if (process.send === undefined) resolve();
    else process.send(message, () => resolve());
  });
}

async function work(job: Assignment): Promise<TrainResult["outcome"]> {
  const { threads, dump, roots, startedAt = performance.timeOrigin } = job;
  const opened = openJob(readJobFolder(job.job));
  // A job that comes from this machine was checked when it was opened or made.
  if (job.meeting.kind === "network") opened.check();
  const run = overrideRun(opened.run, job.overrides);
  const folder = await openRunFolder(job.out, run.checkpoints);
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
    now: () => performance.timeOrigin + performance.now() - startedAt,
    onEvent: (event) => {
      metrics ??= figures(folder.file(FILES.metrics));
      metrics.sink(event);
      void tell({ kind: "event", event });
    },
  };
  try {
    const { kind } = job.meeting;
    const trained = kind === "generations" ? inGenerations : inOneGroup;
    return await trained(job, run, options);
  } finally {
    metrics?.close();
    await engine.close();
  }
}

/** Trains with workers that come and go. */
async function inGenerations(
  { meeting: { group }, rank, deadlineMs = DEADLINE_MS }: Assignment,
  run: Run,
  options: TrainOptions,
): Promise<TrainResult["outcome"]> {
  const { engine } = options;
  const send = (message: FromWorker) => void tell(message);
  const members = new Generations({ engine, group, deadlineMs, tell: send });
  generations = members;
  const beats = setInterval(() => send({ kind: "beat" }), BEAT_MS).unref();
  try {
    return (await train(run, { ...options, members, leads: rank === 0 })).outcome;
  } finally {
    clearInterval(beats);
  }
}

/** Trains with the same workers from the first step to the last. */
async function inOneGroup(
  job: Assignment,
  run: Run,
  options: TrainOptions,
): Promise<TrainResult["outcome"]> {
  const transport = await meet(job);
  hasMet = true;
  const group = new Group({ engine: options.engine, transport });
  try {
    // Between nodes, how gradients are cut into buckets follows from what a message costs.
    group.costs = await measureCosts(transport);
    return (await train(run, { ...options, ranks: { group } })).outcome;
  } catch (error) {
    group.transport.abort(error);
    throw error;
  } finally {
    await group.close();
  }
}

function figures(path: string): JsonlSink {
  return jsonlSink(path, {
    now: Date.now,
    onTrouble: (text) => void tell({ kind: "event", event: { type: "notice", text } }),
  });
}

async function meet(job: Assignment): Promise<Transport> {
  const { rank, workers: size, deadlineMs = DEADLINE_MS } = job;
  const { signal } = meeting;
  assert(job.meeting.kind !== "generations", "workers that come and go meet in generations");
  if (job.meeting.kind === "memory") {
    return joinSharedMemory({ name: job.meeting.group, rank, size, deadlineMs, signal });
  }
  const { own, group } = job.meeting;
  const nodes = Array.from({ length: size / own }, (_, node) =>
    Array.from({ length: own }, (_, place) => node * own + place),
  );
  const names = nodes[Math.floor(rank / own)] ?? [rank];
  const peers = nodes.flat().filter((peer) => !names.includes(peer));
  if (own === 1) return meetOverNetwork(job, job.meeting, peers);
  const place = { rank: rank % own, size: own, names };
  // Several agents may run on one machine: the first rank keeps the names of their groups apart.
  const name = `lockstep-${group}-${names[0]}`;
  const [local, network] = await Promise.all([
    joinSharedMemory({ name, ...place, deadlineMs, signal }),
    meetOverNetwork(job, job.meeting, peers),
  ]);
  return joinNodes({ local, network, nodes, deadlineMs });
}

async function meetOverNetwork(
  { rank, workers: size, deadlineMs = DEADLINE_MS }: Assignment,
  { group, host, ports, token, tls }: Extract<Meeting, { readonly kind: "network" }>,
  peers: readonly number[],
): Promise<Transport> {
  const listener = await listenTcp({
    host,
    ...(ports === undefined ? {} : { ports }),
    token,
    tls,
  });
  try {
    await tell({ kind: "listening", port: parseAddress(listener.address).port });
    const { signal } = meeting;
    const addresses = await Promise.race([told, rejection(signal)]);
    const meets = { listener, addresses, group, rank, size, peers };
    return await joinTcp({ ...meets, deadlineMs, reachMs: REACH_MS, signal });
  } finally {
    listener.close(); // the group lives on without its doors
  }
}

function rejection(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
    if (signal.aborted) reject(signal.reason as Error);
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

/**
 * Another worker is lost. What was done is saved; where nothing was, there is nobody to wait for.
 */
function stopAlone(): void {
  askToStop();
  generations?.end(new LockstepError("ABORTED", "Another worker has ended the run."));
  if (!hasMet) meeting.abort(new LockstepError("ABORTED", "Another worker is lost."));
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
    case "addresses":
      tellAddresses(message.addresses);
      break;
    case "form":
      generations?.form(message);
      break;
    case "history":
      generations?.tell(message.history);
      break;
    case "regroup":
      generations?.regroup(message.generation, message.when);
      break;
    case "stop":
      if (message.alone === true) stopAlone();
      else askToStop();
      break;
  }
});
