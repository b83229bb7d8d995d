/** One transport over several machines: who goes which way, who sees whose memory, and how errors get everywhere. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { Group } from "../src/collectives/index.ts";
import { createOrtEngine } from "../src/engine/index.ts";
import {
  joinMachines,
  joinSharedMemory,
  joinTcp,
  listenTcp,
  SimulatedNetwork,
  type Transport,
} from "../src/transport/index.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

let runs = 0;

/** All ranks in this process. */
async function meet(
  machines: readonly (readonly number[])[],
  networks: readonly Transport[],
): Promise<Transport[]> {
  runs += 1;
  return Promise.all(
    networks.map(async (network, rank) => {
      const names = machines.find((ranks) => ranks.includes(rank)) ?? [];
      const name = `machines-${process.pid}-${runs}-${names[0]}`;
      const place = { rank: names.indexOf(rank), size: names.length, names };
      const local = await joinSharedMemory({ name, ...place, wait: "poll" });
      return joinMachines({ local, network, machines });
    }),
  );
}

test("no message between ranks of one machine crosses the network, and a barrier crosses once a machine", async () => {
  const machines = [
    [0, 1, 2],
    [3, 4, 5],
  ];
  const network = new SimulatedNetwork({ size: 6 });
  const transports = await meet(machines, network.transports);
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
      await transport.barrier({ within: "machine" });
    }),
  );
  assert.equal(network.messages, 0);
  await Promise.all(transports.map(async (transport) => transport.barrier()));
  assert.equal(network.messages, 2);
  await Promise.all(transports.map((transport) => transport.close()));
});

test("ranks of one machine make groups with memory of their own, others groups of messages", async () => {
  const machines = [
    [0, 1],
    [2, 3],
  ];
  const transports = await meet(machines, new SimulatedNetwork({ size: 4 }).transports);
  const request = { kind: "allReduce", count: 10, dtype: "float32", reduction: "sum" } as const;
  await Promise.all(
    transports.map(async (transport, rank) => {
      const whole = new Group({ engine, transport });
      const mine = rank - (rank % 2);
      const local = await whole.subgroup([mine + 1, mine]);
      const across = await whole.subgroup([rank % 2, 2 + (rank % 2)]);
      assert.deepEqual(local.transport.machines, [[0, 1]]);
      assert.deepEqual(across.transport.machines, [[0], [1]]);
      const data = await local.allocate(40);
      const values = new Float32Array(data.bytes.buffer, data.bytes.byteOffset, 10);
      values.fill(10 ** rank);
      await local.run(request, { data, algorithm: "shared" });
      assert.equal(data.of(0).bytes[0], data.bytes[0]);
      await across.run(request, { data: across.borrow(data.own) });
      assert.deepEqual([...values], Array(10).fill(1111));
      await local.close();
      await across.close();
      await whole.barrier();
      await whole.close();
    }),
  );
});

test("an abort in a group of one machine ends the waits of all machines, and names the rank of the run", async () => {
  const machines = [
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
  const transports = await meet(machines, networks);
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
  // The subgroup's other end finds it as it waits; rank 3 itself tells its machine and the network.
  await ended;
  for (const transport of transports) {
    const { fields } = transport.signal.reason as { fields: unknown };
    assert.deepEqual(fields, { peer: 3, by: 3 });
  }
  await Promise.all(transports.map((transport) => transport.close()));
});

test("machines that do not fit the transports are refused", async () => {
  const [first] = new SimulatedNetwork({ size: 4 }).transports;
  assert.ok(first);
  const name = `machines-${process.pid}-refused`;
  const local = await joinSharedMemory({ name, rank: 0, size: 1 });
  for (const machines of [
    [
      [0, 1],
      [2, 3],
    ],
    [[0], [2, 1], [3]],
    [[0], [1, 2]],
  ]) {
    assert.throws(() => joinMachines({ local, network: first, machines }), {
      code: "INVALID_OPTION",
    });
  }
  await local.close();
});
