/**
 * All ranks of a run in this process, over a simulated network: with messages alone, or with memory
 * that ranks of one node share.
 */
import {
  type Collective,
  Group,
  type GroupBuffer,
  type PrepareOptions,
} from "../../src/collectives/index.ts";
import type { Device } from "../../src/engine/index.ts";
import { type Memory, openMemory } from "../../src/memory/index.ts";
import {
  type NetworkOptions,
  type SharedRegion,
  SimulatedNetwork,
  type Transport,
} from "../../src/transport/index.ts";

export interface SimulatedRanks {
  readonly groups: readonly Group[];
  readonly network: SimulatedNetwork;
  close(): Promise<void>;
}

/**
 * @param inPlace whether ranks of one node share memory
 * @param nodes Default: one node of all ranks if they share memory, else each rank alone
 */
export function simulatedRanks(
  engine: Device,
  size: number,
  inPlace: boolean,
  nodes?: Transport["nodes"],
  options: Partial<NetworkOptions> = {},
): SimulatedRanks {
  const everyone = Array.from({ length: size }, (_, rank) => rank);
  const known = nodes ?? (inPlace ? [everyone] : everyone.map((rank) => [rank]));
  const network = new SimulatedNetwork({ ...options, size, nodes: known });
  const regions = new Map<string, Region>();
  const groups = network.transports.map((transport) => {
    const shared = inPlace ? sharing(transport, regions) : transport;
    return new Group({ engine, transport: shared });
  });
  return {
    groups,
    network,
    close: async () => {
      await Promise.all(groups.map((group) => group.close()));
    },
  };
}

/**
 * Allocates memory that collectives of a group work on. All ranks allocate together; `free` closes
 * it.
 */
export function allocate(group: Group, byteLength: number): Promise<GroupBuffer> {
  return group.register(group.newMemory(byteLength));
}

export function free(group: Group, buffer: GroupBuffer): void {
  group.release(buffer);
  buffer.own.close();
}

export function runOnce(
  group: Group,
  collective: Collective,
  options: PrepareOptions,
): Promise<void> {
  return group.prepare(collective, options).run();
}

interface Region {
  readonly memories: Map<number, Memory>;
  readonly waiting: (() => void)[];
}

/**
 * Returns what a rank sees: each rank maps the memory of the others for itself, so that none closes
 * another's.
 */
function mapped({ memories }: Region, rank: number, size: number): SharedRegion {
  const seen = Array.from({ length: size }, (_, peer) => {
    const memory = memories.get(peer);
    if (peer === rank || memory?.reachedAs === undefined) return memory;
    return openMemory(memory.reachedAs, memory.folder);
  });
  return {
    memories: seen,
    close: () => {
      for (const [peer, memory] of seen.entries()) if (peer !== rank) memory?.close();
    },
  };
}

/**
 * Returns the same transport with shared memory: all ranks of a node, also in subgroups within it,
 * see the n-th memory that each of them shares. `name` is that of the group in `regions`.
 */
function sharing(transport: Transport, regions: Map<string, Region>, name = "all"): Transport {
  const { kind, rank, size, generation, nodes, signal } = transport;
  const node = nodes.find((ranks) => ranks.includes(rank)) ?? [rank];
  const subgroups = new Map<string, number>();
  let calls = 0;
  const share = (memory: Memory): Promise<SharedRegion> => {
    const key = `${name}/${calls++}/${node[0]}`;
    const region: Region = regions.get(key) ?? { memories: new Map(), waiting: [] };
    regions.set(key, region);
    region.memories.set(rank, memory);
    return new Promise((resolve) => {
      region.waiting.push(() => resolve(mapped(region, rank, size)));
      if (region.waiting.length < node.length) return;
      for (const done of region.waiting) done();
      for (const shared of region.memories.values()) shared.unlink();
    });
  };
  return {
    kind,
    rank,
    size,
    generation,
    nodes,
    signal,
    share,
    send: (...given) => transport.send(...given),
    receive: (...given) => transport.receive(...given),
    barrier: (...given) => transport.barrier(...given),
    subgroup: async (ranks) => {
      const group = await transport.subgroup(ranks);
      if (group.nodes.length > 1) return group;
      const nth = subgroups.get(ranks.join()) ?? 0;
      subgroups.set(ranks.join(), nth + 1);
      return sharing(group, regions, `${name}/${ranks.join()}#${nth}`);
    },
    abort: (reason) => transport.abort(reason),
    close: () => transport.close(),
  };
}
