/** One rank as a process of its own: joins, does its task, prints the result as one JSON line. */
import fs from "node:fs";
import { Group } from "../../src/collectives/index.ts";
import { createOrtEngine } from "../../src/engine/index.ts";
import { LockstepError } from "../../src/errors.ts";
import { listenTcp } from "../../src/net/index.ts";
import { joinNodes, joinSharedMemory, joinTcp, type Transport } from "../../src/transport/index.ts";
import { allocate } from "../support/ranks.ts";
import { everyCollective } from "./collectives-contract.ts";

export interface RankTask {
  readonly transport: "shared-memory" | "tcp" | "nodes";
  /** For `nodes`: the ranks of each node. */
  readonly nodes?: readonly (readonly number[])[];
  readonly rank: number;
  readonly size: number;
  readonly name: string;
  readonly addresses: readonly string[];
  readonly token?: string;
  readonly tls?: boolean;
  readonly deadlineMs?: number;
  /** The silence limit of shared memory. */
  readonly silenceMs?: number;
  readonly task: "contract" | "loop";
  /** For `contract`: the numbers of elements. */
  readonly counts?: readonly number[];
  /**
   * For `loop`: the collective that is repeated, and which rank does what in which call. Default:
   * `all-gather in place`.
   */
  readonly collective?: "all-gather in place" | "all-gather by messages" | "all-to-all";
  readonly fault?: {
    readonly rank: number;
    readonly call: number;
    /** "nothing": it only reports that it has reached this call. */
    readonly do: "die" | "abort" | "stop" | "nothing";
  };
}

export interface RankResult {
  readonly ok: boolean;
  readonly code?: string;
  readonly peer?: number;
  readonly text?: string;
  /** Milliseconds since 1970. */
  readonly at: number;
}

const task = JSON.parse(process.argv[2] ?? "{}") as RankTask;
const result = await attempt();
say(result);

async function attempt(): Promise<RankResult> {
  const engine = createOrtEngine({ threads: 1, spin: false });
  let group: Group | undefined;
  try {
    const transport = withFault(await join(task));
    group = new Group({ engine, transport });
    if (task.task === "contract")
      await everyCollective(group, task.counts ?? [1, 17, 1000, 70_001]);
    else await loop(group);
    return { ok: true, at: Date.now() };
  } catch (error) {
    const at = Date.now();
    if (!(error instanceof LockstepError)) return { ok: false, text: String(error), at };
    const { peer } = error.fields;
    const { code, message } = error;
    return { ok: false, code, text: message, at, ...(typeof peer === "number" ? { peer } : {}) };
  } finally {
    await group?.close();
    await engine.close();
  }
}

async function join(given: RankTask): Promise<Transport> {
  const { rank, size, name, nodes = [], deadlineMs = 10_000, silenceMs = 10_000 } = given;
  if (given.transport === "shared-memory")
    return joinSharedMemory({ name, rank, size, deadlineMs, silenceMs });
  if (given.transport === "tcp") return joinNetwork(given);
  const names = nodes.find((ranks) => ranks.includes(rank)) ?? [];
  const place = { rank: names.indexOf(rank), size: names.length, names };
  const others = nodes.flat().filter((peer) => !names.includes(peer));
  const [local, network] = await Promise.all([
    joinSharedMemory({ name: `${name}-${names[0]}`, ...place, deadlineMs }),
    joinNetwork(given, others),
  ]);
  return joinNodes({ local, network, nodes, deadlineMs });
}

async function joinNetwork(given: RankTask, peers?: readonly number[]): Promise<Transport> {
  const { rank, size, name, addresses, deadlineMs = 10_000 } = given;
  const [, host = "", port = ""] = /^(.*):(\d+)$/.exec(addresses[rank] ?? "") ?? [];
  const listener = await listenTcp({
    host: host.replace(/[[\]]/g, ""),
    port: Number(port),
    token: given.token ?? "a secret of tests",
    tls: given.tls ?? false,
  });
  const some = peers === undefined ? {} : { peers };
  const joined = joinTcp({ listener, addresses, rank, size, group: name, deadlineMs, ...some });
  return joined.finally(() => listener.close());
}

/** Repeats one collective until something fails, at most a thousand times. */
async function loop(group: Group): Promise<void> {
  const { size } = group;
  const counts = Array<number>(size).fill(Math.floor(100_000 / size));
  const [data, into] = [await allocate(group, 400_000), await allocate(group, 400_000)];
  const { collective = "all-gather in place" } = task;
  const dtype = "float32" as const;
  const exchange = { kind: "allToAll" as const, dtype, sendCounts: counts, receiveCounts: counts };
  const isInPlace = collective === "all-gather in place";
  const prepared =
    collective === "all-to-all"
      ? group.prepare(exchange, { data, into })
      : group.prepare(
          { kind: "allGather", dtype, counts },
          { data: isInPlace ? data : group.borrow(data.own) },
        );
  for (let round = 0; round < 1000; round++) await prepared.run();
}

/** Counts the calls of the transport, and causes the fault that the task asks for. */
function withFault(transport: Transport): Transport {
  const { fault } = task;
  if (fault?.rank !== task.rank) return transport;
  let calls = 0;
  const count = () => {
    calls += 1;
    if (calls !== fault.call) return;
    say({ ok: true, at: Date.now() });
    if (fault.do === "die") process.kill(process.pid, "SIGKILL");
    else if (fault.do === "stop") process.kill(process.pid, "SIGSTOP");
    else if (fault.do === "abort") transport.abort(new Error("the user said so"));
  };
  return new Proxy(transport, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== "function") return value;
      return (...words: unknown[]) => {
        if (name === "send" || name === "receive" || name === "barrier") count();
        return value.apply(target, words) as unknown;
      };
    },
  });
}

/** Writes synchronously, because the next call may end the process. */
function say(word: RankResult): void {
  fs.writeSync(1, `${JSON.stringify(word)}\n`);
}
