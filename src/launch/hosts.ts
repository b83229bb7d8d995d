/**
 * Runs the workers of a run on several machines, through the agent that was started on each. The
 * launcher sends the job to the agents; only the job's data must be there already, below the
 * folders that each agent was started with.
 */
import { randomBytes } from "node:crypto";
import { relative, resolve, sep } from "node:path";
import { LockstepError } from "../errors.ts";
import type { JobFiles } from "../job/index.ts";
import { dialLine, formatAddress, type Line, parseAddress } from "../net/index.ts";
import type { JobOverrides } from "../protocol/index.ts";
import { DEFAULT_AGENT_PORT, isPlace } from "../protocol/index.ts";
import type { Beginning, Changeable, TrainResult } from "../run/index.ts";
import type { EventSink } from "../telemetry/index.ts";
import { OwnClock } from "./own-clock.ts";
import { RemoteAgent } from "./remote.ts";
import { watchWorkers } from "./watch.ts";

export interface HostsOptions {
  /**
   * The addresses of the agents: host, host:port or [v6]:port. The first agent leads: it writes the
   * run's folder.
   */
  readonly hosts: readonly string[];
  readonly token: string;
  /** Whether connections are encrypted. The agents must have been started with the same setting. */
  readonly tls: boolean;
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
  readonly threads?: number | undefined;
  readonly onEvent: EventSink;
  /** Aborting it asks for a clean stop. */
  readonly signal: AbortSignal;
  /**
   * How long to wait until all agents are connected, and for each agent while it takes the job and
   * no part of the job is being sent. Default: 10 s.
   */
  readonly deadlineMs?: number;
}

const DEADLINE_MS = 10_000;

/**
 * Resolves when all workers have ended successfully.
 * @throws DEADLINE, UNAUTHORIZED, ADDRESS or PROTOCOL, naming the hosts; PEER_LOST; what a worker
 * threw
 */
export async function launchOnHosts(options: HostsOptions): Promise<TrainResult["outcome"]> {
  const { signal, deadlineMs = DEADLINE_MS } = options;
  const request = jobOf(options);
  const hosts = options.hosts.map(addressOf);
  const clock = new OwnClock();
  let agents: readonly RemoteAgent[] = [];
  try {
    agents = await connect(hosts, options, clock);
    for (const agent of agents) {
      const firstRank = agent.workers[0]?.rank ?? 0;
      agent.offer({ ...request, firstRank }, options.job);
    }
    await within(deadlineMs, agents);
    const all = agents.flatMap(({ workers }) => workers);
    return await watchWorkers(all, signal, () => undefined);
  } finally {
    clock.close();
    for (const agent of agents) agent.close();
  }
}

function jobOf(options: HostsOptions) {
  const { root, name, job, overrides, beginning, changes, hosts, workers: own, threads } = options;
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
    group: randomBytes(16).toString("hex"),
    own,
    workers: own * hosts.length,
    ...(threads === undefined ? {} : { threads }),
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

async function connect(
  hosts: readonly string[],
  options: HostsOptions,
  clock: OwnClock,
): Promise<RemoteAgent[]> {
  const { token, tls, signal, workers, onEvent, deadlineMs = DEADLINE_MS } = options;
  const addresses = new Map<number, string>();
  const agents: RemoteAgent[] = [];
  const hostOf = (rank: number) => hosts[Math.floor(rank / workers)];
  const dialed = await Promise.allSettled(
    hosts.map(async (address, index) => {
      const line = await dialLine({ address, token, tls, deadlineMs, signal });
      agents[index] = remote(address, line, index);
    }),
  );
  const failures = failuresIn(dialed);
  if (failures.length === 0) return agents;
  for (const agent of agents) agent?.close();
  throw oneOf(failures);

  function remote(host: string, line: Line, index: number): RemoteAgent {
    return new RemoteAgent({
      host,
      line,
      firstRank: index * workers,
      workers,
      clock,
      hostOf,
      onEvent,
      onListening: (rank, port) => {
        addresses.set(rank, formatAddress({ host: parseAddress(host).host, port }));
        const size = hosts.length * workers;
        const all = Array.from({ length: size }, (_, at) => addresses.get(at));
        const known = all.filter((address) => address !== undefined);
        if (known.length < size) return;
        for (const agent of agents) agent.send({ kind: "addresses", addresses: known });
      },
    });
  }
}

/**
 * Waits until every agent has taken the job. The deadline of each agent starts anew whenever a part
 * of the job is sent to it.
 */
async function within(deadlineMs: number, agents: readonly RemoteAgent[]): Promise<void> {
  const answers = await Promise.allSettled(
    agents.map(async (agent) => {
      const { host, accepted } = agent;
      for (;;) {
        const left = agent.sentAt + deadlineMs - performance.now();
        if (left > 0 && (await atMost(left, accepted)) !== "late") return;
        if (left > 0) continue;
        const text = `${host} did not take the job within ${deadlineMs} ms.`;
        throw new LockstepError("DEADLINE", text, { fields: { host } });
      }
    }),
  );
  const failures = failuresIn(answers);
  if (failures.length > 0) throw oneOf(failures);
}

async function atMost(milliseconds: number, what: Promise<void>): Promise<"late" | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<"late">((settle) => {
    timer = setTimeout(() => settle("late"), milliseconds);
  });
  try {
    return (await Promise.race([what, late])) ?? undefined;
  } finally {
    clearTimeout(timer);
  }
}

function failuresIn(settled: readonly PromiseSettledResult<unknown>[]): unknown[] {
  return settled.flatMap((one) => (one.status === "rejected" ? [one.reason as unknown] : []));
}

/** One error for all failures at once, so that ten unreachable hosts are reported together. */
function oneOf(failures: readonly unknown[]): unknown {
  const [first] = failures;
  if (!(first instanceof LockstepError) || failures.length === 1) return first;
  const texts = failures.map((error) => (error instanceof Error ? error.message : String(error)));
  return new LockstepError(first.code, texts.join("\n"), { fields: first.fields });
}
