/** How the members of a generation meet: in shared memory, over the network, or both. */
import { assert } from "../errors.ts";
import type { TcpListener } from "../net/index.ts";
import type { Formed } from "../protocol/index.ts";
import { joinNodes, joinSharedMemory, joinTcp, type Transport } from "../transport/index.ts";

/** All members listen before their addresses are told, so one that is not reached in this time never is. */
const REACH_MS = 8000;

export interface MeetOptions {
  /** What the names of all groups of the run begin with. */
  readonly group: string;
  readonly listener: TcpListener | undefined;
  readonly deadlineMs: number;
  /** Aborting it ends the group. */
  readonly signal: AbortSignal;
}

/** Rejects with what the transports reject with. */
export async function meet(formed: Formed, options: MeetOptions): Promise<Transport> {
  const { generation, rank, members } = formed;
  const { group, deadlineMs, signal } = options;
  const nodes = nodesOf(members);
  const names = nodes.find((ranks) => ranks.includes(rank)) ?? [rank];
  // When one of memory and network fails, the other must not wait in vain.
  const failed = new AbortController();
  const shared = {
    generation,
    deadlineMs,
    signal: AbortSignal.any([signal, failed.signal]),
  };
  const inMemory = () =>
    joinSharedMemory({
      // Several agents may run on one machine: the first rank keeps their groups apart.
      name: `${group}-${generation}-${names[0]}`,
      rank: names.indexOf(rank),
      size: names.length,
      names,
      ...shared,
    });
  if (nodes.length === 1) return inMemory();
  const { listener } = options;
  assert(listener !== undefined, "workers of several machines listen");
  const size = members.length;
  const addresses = members.map(({ address = "" }) => address);
  const overNetwork = (peers?: readonly number[]) =>
    joinTcp({
      listener,
      addresses,
      group,
      rank,
      size,
      ...(peers === undefined ? {} : { peers }),
      reachMs: REACH_MS,
      ...shared,
    });
  if (nodes.length === size) return overNetwork();
  const peers = members.map((_, peer) => peer).filter((peer) => !names.includes(peer));
  const ends = [inMemory(), overNetwork(peers)] as const;
  for (const end of ends) end.catch((error: unknown) => failed.abort(error));
  const [local, network] = await Promise.allSettled(ends);
  if (local.status === "fulfilled" && network.status === "fulfilled") {
    return joinNodes({ local: local.value, network: network.value, nodes, deadlineMs });
  }
  for (const joined of [local, network]) {
    if (joined.status === "fulfilled") await joined.value.close();
  }
  signal.throwIfAborted();
  throw failed.signal.reason;
}

function nodesOf(members: Formed["members"]): number[][] {
  const nodes: number[][] = [];
  for (const [rank, { node }] of members.entries()) {
    const own = nodes[node] ?? [];
    nodes[node] = [...own, rank];
  }
  return nodes;
}
