/** All ranks of a run in this process, over a simulated network: with messages alone, or with memory that those of one machine can read. */
import { Group } from "../../src/collectives/index.ts";
import type { Device } from "../../src/engine/index.ts";
import { type Memory, openMemory } from "../../src/memory/index.ts";
import { type SharedRegion, SimulatedNetwork, type Transport } from "../../src/transport/index.ts";

export interface SimulatedRanks {
  readonly groups: readonly Group[];
  readonly network: SimulatedNetwork;
  close(): Promise<void>;
}

/** In place: by memory of each machine's own ranks. Unless told, that is one machine of all, and by messages each is alone. */
export function simulatedRanks(
  engine: Device,
  size: number,
  inPlace: boolean,
  machines?: Transport["machines"],
): SimulatedRanks {
  const everyone = Array.from({ length: size }, (_, rank) => rank);
  const known = machines ?? (inPlace ? [everyone] : everyone.map((rank) => [rank]));
  const network = new SimulatedNetwork({ size, machines: known });
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

interface Region {
  readonly memories: Map<number, Memory>;
  readonly waiting: (() => void)[];
}

/** What a rank sees: each rank maps the memory of the others for itself, so that none closes another's. */
function mapped({ memories }: Region, rank: number, size: number): SharedRegion {
  const seen = Array.from({ length: size }, (_, peer) => {
    const memory = memories.get(peer);
    return peer === rank || memory?.name === undefined ? memory : openMemory(memory.name);
  });
  return {
    memories: seen,
    close: () => {
      for (const [peer, memory] of seen.entries()) if (peer !== rank) memory?.close();
    },
  };
}

/**
 * The same transport; the n-th memory that each rank shares is seen by all ranks of its machine, and so it is in
 * subgroups within one machine. `name` is that of the group in `regions`.
 */
function sharing(transport: Transport, regions: Map<string, Region>, name = "all"): Transport {
  const { kind, rank, size, generation, machines, signal } = transport;
  const machine = machines.find((ranks) => ranks.includes(rank)) ?? [rank];
  const subgroups = new Map<string, number>();
  let calls = 0;
  const share = (memory: Memory): Promise<SharedRegion> => {
    const key = `${name}/${calls++}/${machine[0]}`;
    const region: Region = regions.get(key) ?? { memories: new Map(), waiting: [] };
    regions.set(key, region);
    region.memories.set(rank, memory);
    return new Promise((resolve) => {
      region.waiting.push(() => resolve(mapped(region, rank, size)));
      if (region.waiting.length < machine.length) return;
      for (const done of region.waiting) done();
      for (const shared of region.memories.values()) shared.unlink();
    });
  };
  return {
    kind,
    rank,
    size,
    generation,
    machines,
    signal,
    share,
    send: (...given) => transport.send(...given),
    receive: (...given) => transport.receive(...given),
    barrier: (...given) => transport.barrier(...given),
    subgroup: async (ranks) => {
      const group = await transport.subgroup(ranks);
      if (group.machines.length > 1) return group;
      const nth = subgroups.get(ranks.join()) ?? 0;
      subgroups.set(ranks.join(), nth + 1);
      return sharing(group, regions, `${name}/${ranks.join()}#${nth}`);
    },
    abort: (reason) => transport.abort(reason),
    close: () => transport.close(),
  };
}
