/** All ranks of a run in this process, over a simulated network: with messages alone, or with memory that all can read. */
import { Group } from "../../src/collectives/index.ts";
import type { Engine } from "../../src/engine/index.ts";
import type { Memory } from "../../src/memory/index.ts";
import { type SharedRegion, SimulatedNetwork, type Transport } from "../../src/transport/index.ts";

export interface SimulatedRanks {
  readonly groups: readonly Group[];
  readonly network: SimulatedNetwork;
  close(): Promise<void>;
}

export function simulatedRanks(engine: Engine, size: number, inPlace: boolean): SimulatedRanks {
  const network = new SimulatedNetwork({ size });
  const regions: Region[] = [];
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
  readonly memories: Memory[];
  readonly waiting: ((region: SharedRegion) => void)[];
}

/** The same transport; the n-th memory that each rank shares is seen by all. */
function sharing(transport: Transport, regions: Region[]): Transport {
  const { kind, rank, size, generation, signal } = transport;
  let calls = 0;
  const share = (memory: Memory): Promise<SharedRegion> => {
    const region = regions[calls] ?? { memories: [], waiting: [] };
    regions[calls++] = region;
    region.memories[rank] = memory;
    return new Promise((resolve) => {
      region.waiting.push(resolve);
      if (region.waiting.length < size) return;
      const { memories } = region;
      for (const done of region.waiting) done({ memories, close: () => undefined });
    });
  };
  return {
    kind,
    rank,
    size,
    generation,
    signal,
    share,
    send: (...given) => transport.send(...given),
    receive: (...given) => transport.receive(...given),
    barrier: (...given) => transport.barrier(...given),
    subgroup: (ranks) => transport.subgroup(ranks),
    abort: (reason) => transport.abort(reason),
    close: () => transport.close(),
  };
}
