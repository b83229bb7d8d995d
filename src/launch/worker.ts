/**
 * A worker of a run on this machine: a process with a rank, started by the launcher. It ends when
 * its launcher does.
 */
import { Group, measureCosts } from "../collectives/index.ts";
import { createOrtEngine } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import { openJob, readJobFolder } from "../job/index.ts";
import { type JsonlSink, jsonlSink } from "../telemetry/index.ts";
import { FILES, openRunFolder, overrideRun, type TrainResult, train } from "../train/index.ts";
import {
  joinMachines,
  joinSharedMemory,
  joinTcp,
  listenTcp,
  parseAddress,
  type Transport,
} from "../transport/index.ts";
import {
  type Assignment,
  errorMessage,
  type FromWorker,
  type Meeting,
  type ToWorker,
} from "./messages.ts";
import { endProcess, outliveOutput } from "./survive.ts";

/**
 * How long one worker may work alone while others wait. Workers that have ended, were stopped or
 * fell silent are noticed sooner.
 */
const DEADLINE_MS = 3_600_000;
/**
 * All workers listen before their addresses are sent, so a worker that cannot reach another within
 * this time never will.
 */
const REACH_MS = 8000;

const stop = new AbortController();
/** Aborts the meeting of the workers when it can no longer succeed. */
const meeting = new AbortController();
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
  // A job of this machine was already checked when it was opened or made.
  if (job.meeting.kind === "network") opened.check();
  const run = overrideRun(opened.run, job.overrides);
  const folder = await openRunFolder(job.out);
  const engine = createOrtEngine({ threads, ...(dump === undefined ? {} : { dump }) });
  // The worker that writes checkpoints also writes the metrics: the launcher may be on another
  // machine, or may have ended a step earlier.
  const metrics = job.rank === 0 ? figures(folder.file(FILES.metrics)) : undefined;
  try {
    const transport = await meet(job);
    hasMet = true;
    const group = new Group({ engine, transport });
    try {
      // Between machines, the size of the gradient buckets depends on the measured cost of a
      // message.
      if (transport.machines.length > 1) group.costs = await measureCosts(group);
      const { outcome } = await train(run, {
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
          metrics?.sink(event);
          void tell({ kind: "event", event });
        },
        ranks: { group },
      });
      return outcome;
    } catch (error) {
      group.transport.abort(error);
      throw error;
    } finally {
      await group.close();
    }
  } finally {
    metrics?.close();
    await engine.close();
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
  if (job.meeting.kind === "memory") {
    return joinSharedMemory({ name: job.meeting.group, rank, size, deadlineMs, signal });
  }
  const { own, group } = job.meeting;
  const machines = Array.from({ length: size / own }, (_, machine) =>
    Array.from({ length: own }, (_, place) => machine * own + place),
  );
  const names = machines[Math.floor(rank / own)] ?? [rank];
  const peers = machines.flat().filter((peer) => !names.includes(peer));
  if (own === 1) return meetOverNetwork(job, job.meeting, peers);
  const place = { rank: rank % own, size: own, names };
  // The name contains the first rank of these workers: several agents on one machine would
  // otherwise use the same name.
  const name = `lockstep-${group}-${names[0]}`;
  const [local, network] = await Promise.all([
    joinSharedMemory({ name, ...place, deadlineMs, signal }),
    meetOverNetwork(job, job.meeting, peers),
  ]);
  return joinMachines({ local, network, machines, deadlineMs });
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
    listener.close(); // the connections of the group stay open
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
  // Work that a stop has left behind, such as opening the data, is not waited for.
  endProcess(Number(process.exitCode ?? 0));
}

function askToStop(): void {
  stop.abort(new LockstepError("ABORTED", "A stop was asked for."));
}

/**
 * Called when another worker is lost: saves what was done. If the workers have not met yet, there
 * is nothing to save and nobody to wait for.
 */
function stopAlone(): void {
  askToStop();
  if (!hasMet) meeting.abort(new LockstepError("ABORTED", "Another worker is lost."));
}

outliveOutput();
process.on("uncaughtException", (error) => {
  process.stderr.write(`${error.stack ?? String(error)}\n`);
  endProcess(1);
});
// A worker that is asked to stop, alone or with all others, ends the run properly: all stop after
// the same step.
process.on("SIGTERM", askToStop);
// `process.exit` is not used: the engine may be computing on another thread.
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
    case "stop":
      if (message.alone === true) stopAlone();
      else askToStop();
      break;
  }
});
