import { after } from "node:test";
import { Group } from "../../src/collectives/index.ts";
import { createOrtEngine } from "../../src/engine/index.ts";
import {
  joinSharedMemory,
  joinTcp,
  listenTcp,
  SimulatedNetwork,
} from "../../src/transport/index.ts";
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
      const listen = () => listenTcp({ host, token: "secret" });
      const listeners = await Promise.all(Array.from({ length: size }, listen));
      const addresses = listeners.map(({ address }) => address);
      return Promise.all(
        listeners.map(async (listener, rank) => {
          const transport = await joinTcp({ listener, addresses, rank, size });
          listener.close();
          return new Group({ engine, transport });
        }),
      );
    },
  });
}
