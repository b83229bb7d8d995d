import { after } from "node:test";
import { Group } from "../../src/collectives/index.ts";
import { createOrtEngine } from "../../src/engine/index.ts";
import { joinSharedMemory, SimulatedNetwork } from "../../src/transport/index.ts";
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
