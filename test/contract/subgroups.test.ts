/**
 * A group and its subgroups fail together: ranks that have lost one in a subgroup see in the group,
 * before any wait ends, that they have to go on in a new one.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { LockstepError } from "../../src/errors.ts";
import { listenTcp } from "../../src/net/index.ts";
import {
  joinNodes,
  joinSharedMemory,
  joinTcp,
  SimulatedNetwork,
  type Transport,
} from "../../src/transport/index.ts";

const SIZE = 4;
const PAIRS = [
  [0, 1],
  [2, 3],
];
const RANKS = [0, 1, 2, 3];

const inMemory = (name: string, ranks: readonly number[]) =>
  Promise.all(
    ranks.map((_, rank) =>
      joinSharedMemory({
        name: `subgroups-${process.pid}-${name}`,
        rank,
        size: ranks.length,
        names: ranks,
        wait: "poll",
      }),
    ),
  );

const JOINS: Readonly<Record<string, () => Promise<Transport[]>>> = {
  simulated: () => Promise.resolve([...new SimulatedNetwork({ size: SIZE }).transports]),
  "shared memory": () => inMemory("all", RANKS),
  tcp: async () => {
    const listen = () => listenTcp({ host: "127.0.0.1", token: "a secret of tests" });
    const listeners = await Promise.all(RANKS.map(listen));
    const addresses = listeners.map(({ address }) => address);
    const joined = listeners.map((listener, rank) =>
      joinTcp({ listener, addresses, rank, size: SIZE }),
    );
    const transports = await Promise.all(joined);
    for (const listener of listeners) listener.close();
    return transports;
  },
  nodes: async () => {
    const network = new SimulatedNetwork({ size: SIZE });
    const locals = await Promise.all(PAIRS.map((ranks, node) => inMemory(`${node}`, ranks)));
    return network.transports.map((transport, rank) =>
      joinNodes({ local: locals.flat()[rank] as Transport, network: transport, nodes: PAIRS }),
    );
  },
};

for (const [name, join] of Object.entries(JOINS)) {
  test(`${name}: a rank that is lost in a subgroup is lost in the group, before a wait of the subgroup ends`, async () => {
    const transports = (await join()) as [Transport, Transport, Transport, Transport];
    const [first, second] = transports;
    try {
      const pairs = await Promise.all(
        transports.map((transport, rank) => transport.subgroup(PAIRS[rank >> 1] as number[])),
      );
      await Promise.all(pairs.map(async (pair) => pair.barrier()));
      const waiting = Promise.all(
        [pairs[0]?.barrier(), pairs[2]?.receive(1, new Uint8Array(1))].map(async (wait, pair) => {
          const found = (error: unknown) => {
            assert.equal(transports[2 * pair]?.signal.aborted, true, `${error}`);
            return error instanceof LockstepError && error.fields["peer"] === 1;
          };
          await assert.rejects(async () => wait, found);
        }),
      );
      await second.close();
      // A rank of the other subgroup waits in the group, and its subgroup fails with it.
      await assert.rejects(async () => transports[3].barrier(), { code: "PEER_LOST" });
      await waiting;
      await assert.rejects(async () => first.barrier(), { code: "PEER_LOST" });
    } finally {
      await Promise.all(transports.map((transport) => transport.close()));
    }
  });
}

test("shared memory: a rank that leaves before it joins a subgroup is lost at once", async () => {
  const [first, second, third] = await inMemory("early", RANKS);
  try {
    const joining = first?.subgroup([0, 1]);
    await Promise.all([second?.close(), third?.close()]);
    await assert.rejects(async () => joining, { code: "PEER_LOST", fields: { peer: 1 } });
    assert.equal(first?.signal.aborted, true);
  } finally {
    await first?.close();
  }
});
