/**
 * Runs the workers of a run on several machines, through the agent that was started on each. The
 * launcher sends the job to the agents; only the job's data must be there already, below the
 * folders that each agent was started with.
 */
import { createHash, randomBytes } from "node:crypto";
import { relative, resolve, sep } from "node:path";
import { openStateStore, type StateStore } from "../durable/index.ts";
import { LockstepError } from "../errors.ts";
import type { JobFiles } from "../job/index.ts";
import { formatAddress, parseAddress } from "../net/index.ts";
import type { JobOverrides } from "../protocol/index.ts";
import { DEFAULT_AGENT_PORT, isPlace } from "../protocol/index.ts";
import type { Beginning, Changeable, TrainResult } from "../run/index.ts";
import type { EventSink } from "../telemetry/index.ts";
import { atMost, END_MS } from "./at-most.ts";
import { HostsCrew } from "./hosts-crew.ts";
import { livingOf } from "./returning.ts";
import { openStored } from "./stored.ts";
import { supervise } from "./supervise.ts";
import type { SuperviseOptions } from "./supervise-options.ts";

export interface HostsOptions {
  /**
   * The addresses of the agents: host, host:port or [v6]:port. The first agent leads: it writes the
   * run's folder.
   */
  readonly hosts: readonly string[];
  readonly token: string;
  /** Whether connections are encrypted. The agents must have been started with the same setting. */
  readonly tls: boolean;
  /**
   * Where the launcher keeps its state: a folder, or etcd://HOST:PORT/NAME. Another launcher that is
   * started with the same job and the same place takes the run over when this one is gone; its
   * workers go on meanwhile. Default: nowhere, and workers stop and save when their launcher is gone.
   */
  readonly state?: string | undefined;
  /** How long workers go on without a launcher. Default: 5 minutes. */
  readonly awaitMs?: number | undefined;
  /** Where machines that join are waited for: host:port. Default: nowhere. */
  readonly listen?: string | undefined;
  /** Is given the address at which the launcher listens, once it does. */
  readonly onListening?: ((address: string) => void) | undefined;
  /** The folder that contains `out`; each agent uses its own folder in place of it. */
  readonly root: string;
  /** The run's folder: an absolute path, or one relative to `root`. */
  readonly out: string;
  /** The name of the run, shown to people. */
  readonly name: string;
  readonly job: JobFiles;
  /** The options that replace what the job says. */
  readonly overrides: JobOverrides;
  readonly beginning: Beginning;
  /** The options that may change in a run that is resumed. */
  readonly changes?: readonly Changeable[] | undefined;
  /** The number of workers on each host. */
  readonly workers: number;
  /** With fewer workers the run waits. Default: 1. */
  readonly minWorkers?: number | undefined;
  /** Workers beyond this number stand by. Default: those of all hosts. */
  readonly maxWorkers?: number | undefined;
  /** So many workers divide the model among them. Default: 1. */
  readonly together?: number | undefined;
  /** So many of them are of one machine. Default: all. */
  readonly within?: number | undefined;
  readonly threads?: number | undefined;
  readonly onEvent: EventSink;
  /** Aborting it asks for a clean stop. */
  readonly signal: AbortSignal;
  /** Is given the workers before the first of them starts. */
  readonly onWorkers?: SuperviseOptions["onWorkers"] | undefined;
  /**
   * How long to wait until all agents are connected, and for each agent while it takes the job and
   * no part of the job is being sent. Default: 10 s.
   */
  readonly deadlineMs?: number;
}

const DEADLINE_MS = 10_000;
const AWAIT_MS = 300_000;

/**
 * Resolves when the run has ended successfully. Workers and agents that are lost are waited for, and
 * the others go on meanwhile.
 * @throws DEADLINE, UNAUTHORIZED, ADDRESS or PROTOCOL, naming the hosts, before the run begins; what
 *   a worker threw; PEER_LOST
 */
export async function launchOnHosts(options: HostsOptions): Promise<TrainResult["outcome"]> {
  const { state: place, signal } = options;
  if (place === undefined) return lead(options, undefined);
  const store = await openStateStore(place, signal);
  try {
    return await lead(options, store);
  } finally {
    // A write to a disk that does not answer may never end.
    await atMost(END_MS, store.close());
  }
}

async function lead(options: HostsOptions, store: StateStore | undefined) {
  const { hosts, workers, token, tls, listen, signal, onEvent } = options;
  const { minWorkers = 1, maxWorkers = hosts.length * workers, together, within } = options;
  const { deadlineMs = DEADLINE_MS, onListening } = options;
  const job = hashOf(options.job);
  const last = store && openStored(store.last, store.place);
  if (store !== undefined && last !== undefined && last.job !== job) throw otherJob(store.place);
  const group = last?.group ?? `lockstep-${randomBytes(8).toString("hex")}`;
  const crew = await HostsCrew.open({
    hosts: hosts.map(addressOf),
    secrets: { token, tls },
    listen: listen && listeningAt(listen, last?.listensAt),
    offer: { message: jobOf(options, group, store?.term), files: options.job },
    left: last && livingOf(last.state),
    deadlineMs,
    signal,
    onListening,
  });
  const { listensAt } = crew;
  return supervise({
    minWorkers,
    maxWorkers,
    together,
    within,
    crew: (events) => crew.attach(events),
    onWorkers: options.onWorkers,
    onEvent,
    signal,
    // Where no worker has gone on, the run begins like any other, from its checkpoint.
    ...(store && {
      kept: { store, group, job, listensAt, last: crew.taken.size > 0 ? last : undefined },
    }),
  });
}

/** Machines that had joined dial the address at which the launcher before has listened. */
function listeningAt(listen: string, before: string | undefined): string {
  return before !== undefined && parseAddress(listen).port === 0 ? before : listen;
}

function hashOf(job: JobFiles): string {
  const hash = createHash("sha256");
  for (const [name, pieces] of job) {
    hash.update(`${name}\n`);
    for (const piece of pieces) hash.update(piece);
  }
  return hash.digest("hex");
}

function otherJob(place: string): LockstepError {
  const text = `"${place}" has the state of a run of another job, which has not ended.`;
  return new LockstepError("RUN_EXISTS", text, {
    hint: "Start that run again with the same command and let it end, or use another --state.",
    fields: { place },
  });
}

function jobOf(options: HostsOptions, group: string, term: number | undefined) {
  const { root, name, job, overrides, beginning, changes, workers: own, threads } = options;
  const { awaitMs = AWAIT_MS } = options;
  const files = [...job].map(([file, pieces]) => ({
    name: file,
    bytes: pieces.reduce((sum, { byteLength }) => sum + byteLength, 0),
  }));
  return {
    kind: "job",
    name,
    files,
    out: placeBelow(root, options.out),
    beginning,
    overrides,
    ...(changes === undefined ? {} : { changes: [...changes] }),
    group,
    own,
    ...(threads === undefined ? {} : { threads }),
    ...(term === undefined ? {} : { term, awaitMs }),
  } as const;
}

function placeBelow(root: string, path: string): string {
  const place = relative(root, resolve(root, path)).split(sep).join("/");
  if (isPlace(place)) return place;
  throw new LockstepError("INVALID_OPTION", `"${path}" is not below "${root}".`, {
    hint: "With --hosts, the run's folder has the same place below the folder of every agent.",
  });
}

function addressOf(host: string): string {
  const bare = /^[^:[\]\s]+$/.test(host) || /^\[[^\]]+\]$/.test(host);
  return formatAddress(parseAddress(bare ? `${host}:${DEFAULT_AGENT_PORT}` : host));
}
