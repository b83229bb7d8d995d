/** The contract of collectives, over every transport. */
import { after } from "node:test";
import { Group } from "../../src/collectives/index.ts";
import { createOrtEngine } from "../../src/engine/index.ts";
import { listenTcp } from "../../src/net/index.ts";
import {
  joinNodes,
  joinSharedMemory,
  joinTcp,
  SimulatedNetwork,
  type TcpOptions,
  type Transport,
} from "../../src/transport/index.ts";
import { simulatedRanks } from "../support/ranks.ts";
import { collectivesContract } from "./collectives-contract.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

collectivesContract({
  name: "simulated",
  makeGroups: async (size) => {
    const { transports } = new SimulatedNetwork({ size, jitterUs: 500, loss: 0.1, seed: size });
    return transports.map((transport) => new Group({ engine, transport }));
  },
});

collectivesContract({
  name: "shared memory, one process",
  makeGroups: (size) =>
    Promise.all(
      Array.from({ length: size }, async (_, rank) => {
        const name = `contract-${process.pid}-${size}`;
        const transport = await joinSharedMemory({ name, rank, size, wait: "poll" });
        return new Group({ engine, transport });
      }),
    ),
});

for (const host of ["127.0.0.1", "::1"]) {
  collectivesContract({
    name: `tcp over ${host}, one process`,
    worlds: host === "::1" ? [3] : [1, 2, 3, 4, 5, 8],
    makeGroups: async (size) => {
      const transports = await joinAll(size, host, () => ({}));
      return transports.map((transport) => new Group({ engine, transport }));
    },
  });
}

/** The ranks of each node, for each size. */
const NODES: Readonly<Record<number, readonly (readonly number[])[]>> = {
  1: [[0]],
  2: [[0, 1]],
  3: [[0, 1], [2]],
  4: [
    [0, 1],
    [2, 3],
  ],
  5: [[0], [1, 2, 3], [4]],
  8: [
    [0, 1, 2],
    [3, 4, 5],
    [6, 7],
  ],
};

for (const inPlace of [true, false]) {
  collectivesContract({
    name: `simulated nodes, ${inPlace ? "in place" : "by messages"}`,
    worlds: [3, 4, 5, 8],
    makeGroups: async (size) => {
      const nodes = NODES[size] ?? [];
      if (inPlace) return simulatedRanks(engine, size, true, nodes, { jitterUs: 500 }).groups;
      const { transports } = new SimulatedNetwork({ size, nodes, jitterUs: 500, seed: size });
      return transports.map((transport) => new Group({ engine, transport }));
    },
  });
}

collectivesContract({
  name: "nodes, one process",
  worlds: [1, 2, 3, 4, 5, 8],
  makeGroups: async (size) => {
    const nodes = NODES[size] ?? [];
    const machineOf = (rank: number) => nodes.find((ranks) => ranks.includes(rank)) ?? [];
    const others = (rank: number) => nodes.flat().filter((r) => !machineOf(rank).includes(r));
    const networks = await joinAll(size, "127.0.0.1", (rank) => ({ peers: others(rank) }));
    return Promise.all(
      networks.map(async (network, rank) => {
        const names = machineOf(rank);
        const name = `contract-${process.pid}-${size}-${names[0]}`;
        const place = { rank: names.indexOf(rank), size: names.length, names };
        const local = await joinSharedMemory({ name, ...place, wait: "poll" });
        return new Group({ engine, transport: joinNodes({ local, network, nodes }) });
      }),
    );
  },
});

/** Joins ranks over TCP, all in this process. */
async function joinAll(
  size: number,
  host: string,
  more: (rank: number) => Pick<TcpOptions, "peers">,
): Promise<Transport[]> {
  const listen = () => listenTcp({ host, token: "a secret of tests" });
  const listeners = await Promise.all(Array.from({ length: size }, listen));
  const addresses = listeners.map(({ address }) => address);
  return Promise.all(
    listeners.map(async (listener, rank) => {
      const transport = await joinTcp({ listener, addresses, rank, size, ...more(rank) });
      listener.close();
      return transport;
    }),
  );
}
