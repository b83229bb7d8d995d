/**
 * One transport over several nodes: which way messages go, which memory is shared, and how errors
 * reach all ranks.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { Group } from "../src/collectives/index.ts";
import { createOrtEngine } from "../src/engine/index.ts";
import { listenTcp } from "../src/net/index.ts";
import {
  joinNodes,
  joinSharedMemory,
  joinTcp,
  SimulatedNetwork,
  type Transport,
} from "../src/transport/index.ts";
import { allocate, runOnce } from "./support/ranks.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

let runs = 0;

/** Joins all ranks in this process. */
async function meet(
  nodes: readonly (readonly number[])[],
  networks: readonly Transport[],
): Promise<Transport[]> {
  runs += 1;
  return Promise.all(
    networks.map(async (network, rank) => {
      const names = nodes.find((ranks) => ranks.includes(rank)) ?? [];
      const name = `nodes-${process.pid}-${runs}-${names[0]}`;
      const place = { rank: names.indexOf(rank), size: names.length, names };
      const local = await joinSharedMemory({ name, ...place, wait: "poll" });
      return joinNodes({ local, network, nodes });
    }),
  );
}

test("no message between ranks of one node crosses the network, and a barrier crosses once for each node", async () => {
  const nodes = [
    [0, 1, 2],
    [3, 4, 5],
  ];
  const network = new SimulatedNetwork({ size: 6 });
  const transports = await meet(nodes, network.transports);
  const byte = (value: number) => Uint8Array.of(value);
  await Promise.all(
    transports.map(async (transport, rank) => {
      const next = rank - (rank % 3) + ((rank + 1) % 3);
      const before = rank - (rank % 3) + ((rank + 2) % 3);
      const into = byte(99);
      const receiving = transport.receive(before, into);
      await transport.send(next, byte(rank));
      await receiving;
      assert.equal(into[0], before);
      await transport.barrier({ within: "node" });
    }),
  );
  assert.equal(network.messages, 0);
  await Promise.all(transports.map(async (transport) => transport.barrier()));
  assert.equal(network.messages, 2);
  await Promise.all(transports.map((transport) => transport.close()));
});

test("subgroups within one node share memory, and others use messages", async () => {
  const nodes = [
    [0, 1],
    [2, 3],
  ];
  const transports = await meet(nodes, new SimulatedNetwork({ size: 4 }).transports);
  const request = { kind: "allGather", dtype: "uint8", counts: [1, 1] } as const;
  await Promise.all(
    transports.map(async (transport, rank) => {
      const whole = new Group({ engine, transport });
      const mine = rank - (rank % 2);
      const local = await whole.subgroup([mine + 1, mine]);
      const across = await whole.subgroup([rank % 2, 2 + (rank % 2)]);
      assert.deepEqual(local.transport.nodes, [[0, 1]]);
      assert.deepEqual(across.transport.nodes, [[0], [1]]);
      const data = await allocate(local, 4);
      data.bytes[local.rank] = 10 + rank;
      await runOnce(local, request, { data });
      assert.equal(data.of(0).bytes[0], data.bytes[0]);
      // Rank `mine + 1` comes first in the group of its node.
      assert.deepEqual([...data.bytes], [11 + mine, 10 + mine, 0, 0]);
      await local.barrier();
      // In the group across nodes, each rank contributes the first byte that its node has gathered.
      const own = across.borrow(data.own);
      assert.throws(() => own.of(1 - across.rank), /cannot be read here/);
      data.bytes[across.rank] = 11 + mine;
      await runOnce(across, request, { data: own });
      assert.deepEqual([...data.bytes], [11, 13, 0, 0]);
      await local.close();
      await across.close();
      await whole.barrier();
      await whole.close();
    }),
  );
});

test("an abort in a group of one node ends the waits of all nodes, and names the rank of the run", async () => {
  const nodes = [
    [0, 1],
    [2, 3],
  ];
  const listen = () => listenTcp({ host: "127.0.0.1", token: "a secret of tests" });
  const listeners = await Promise.all(Array.from({ length: 4 }, listen));
  const addresses = listeners.map(({ address }) => address);
  const networks = await Promise.all(
    listeners.map((listener, rank) => {
      const peers = rank < 2 ? [2, 3] : [0, 1];
      return joinTcp({ listener, addresses, rank, size: 4, peers });
    }),
  );
  for (const listener of listeners) listener.close();
  const transports = await meet(nodes, networks);
  const locals = await Promise.all(
    transports.map((transport, rank) => transport.subgroup(rank < 2 ? [0, 1] : [2, 3])),
  );
  const waits = [
    locals[2]?.receive(1, new Uint8Array(1)),
    transports[0]?.receive(3, new Uint8Array(1)),
    transports[1]?.receive(0, new Uint8Array(1)),
    transports[2]?.barrier(),
  ];
  const ended = Promise.all(
    waits.map((wait) =>
      assert.rejects(async () => wait, { code: "ABORTED", message: /Rank 3 aborted: enough/ }),
    ),
  );
  locals[3]?.abort(new Error("enough"));
  // The subgroup's other rank finds the abort while it waits; rank 3 itself tells its node and the
  // network.
  await ended;
  for (const transport of transports) {
    const { fields } = transport.signal.reason as { fields: unknown };
    assert.deepEqual(fields, { peer: 3, by: 3 });
  }
  await Promise.all(transports.map((transport) => transport.close()));
});

test("nodes that do not fit the transports are refused", async () => {
  const [first] = new SimulatedNetwork({ size: 4 }).transports;
  assert.ok(first);
  const name = `nodes-${process.pid}-refused`;
  const local = await joinSharedMemory({ name, rank: 0, size: 1 });
  for (const nodes of [
    [
      [0, 1],
      [2, 3],
    ],
    [[0], [2, 1], [3]],
    [[0], [1, 2]],
  ]) {
    assert.throws(() => joinNodes({ local, network: first, nodes }), {
      code: "INVALID_OPTION",
    });
  }
  await local.close();
});
