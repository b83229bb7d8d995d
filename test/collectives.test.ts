/** What collectives promise beyond right sums: bits, bounds, errors with a name, and the way over machines. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import {
  type Collective,
  type CostModel,
  chooseSchedule,
  DEFAULT_COSTS,
  elementsSent,
  formatCosts,
  Group,
  measureCosts,
  type Schedule,
  schedulesFor,
} from "../src/collectives/index.ts";
import { createOrtEngine } from "../src/engine/index.ts";
import type { LockstepError } from "../src/errors.ts";
import { SimulatedNetwork } from "../src/transport/index.ts";
import { simulatedRanks } from "./support/ranks.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

const REQUESTS: readonly Collective[] = [
  { kind: "allReduce", count: 500, dtype: "float32", reduction: "sum" },
  { kind: "reduceScatter", count: 500, dtype: "float32", reduction: "sum" },
  { kind: "allGather", count: 500, dtype: "float32" },
  { kind: "broadcast", count: 500, dtype: "float32", root: 0 },
  {
    kind: "allToAll",
    dtype: "float32",
    sendCounts: [9, 9, 9, 9, 9],
    receiveCounts: [9, 9, 9, 9, 9],
  },
];

const TWO_MACHINES = [
  [0, 1, 2],
  [3, 4],
];

test("a rank that is killed in any phase of any collective is named on all others", async () => {
  const [size, machines] = [5, TWO_MACHINES];
  for (const request of REQUESTS) {
    for (const { algorithm } of schedulesFor(request, { rank: 0, size, shared: false, machines })) {
      for (let message = 0; message < 10; message++) {
        const network = new SimulatedNetwork({ size, jitterUs: 50, seed: message, machines });
        const victim = message % size;
        const dying = network.transports[victim];
        assert.ok(dying);
        const finished = new Set<number>();
        let finishedBefore: ReadonlySet<number> | undefined;
        dying.onMessage = (sent) => {
          if (sent !== message >> 1) return;
          finishedBefore = new Set(finished);
          network.kill(victim);
        };
        const groups = network.transports.map((transport) => new Group({ engine, transport }));
        const runs = groups.map(async (group) => {
          const [data, into] = [await group.allocate(4000), await group.allocate(4000)];
          const options = { data, into, algorithm: algorithm as "ring" };
          for (let round = 0; round < 20; round++) await group.run(request, options);
          finished.add(group.rank);
        });
        runs[victim]?.catch(() => undefined);
        const others = runs.flatMap((run, rank) => (rank === victim ? [] : [{ run, rank }]));
        await Promise.allSettled(others.map(({ run }) => run));
        for (const { run, rank } of others) {
          if (finishedBefore === undefined || finishedBefore.has(rank)) {
            await run;
            continue;
          }
          await assert.rejects(run, (error: LockstepError) => {
            const { code, fields } = error;
            assert.deepEqual([code, fields["peer"]], ["PEER_LOST", victim], error.message);
            return true;
          });
        }
        await Promise.all(groups.map((group) => group.close()));
      }
    }
  }
});

test("whatever arrives first, the bits are the same, on every rank", async () => {
  const [size, count] = [6, 1001];
  const machines = [
    [0, 1, 2],
    [3, 4, 5],
  ];
  const collective = { kind: "allReduce", count, dtype: "float32", reduction: "sum" } as const;
  const canonical = new Set<string>();
  for (const { algorithm } of schedulesFor(collective, {
    rank: 0,
    size,
    shared: false,
    machines,
  })) {
    const found = new Set<string>();
    const network = { size, machines, jitterUs: 1000, loss: 0.2 };
    for (const seed of [1, 2, 3]) {
      const { transports } = new SimulatedNetwork({ ...network, seed });
      await Promise.all(
        transports.map(async (transport) => {
          const group = new Group({ engine, transport });
          const data = await group.allocate(4 * count);
          const values = new Float32Array(data.bytes.buffer, data.bytes.byteOffset, count);
          for (let i = 0; i < count; i++)
            values[i] = Math.sin(i * (transport.rank + 1)) * 10 ** (i % 7);
          await group.run(collective, { data, algorithm: algorithm as "ring" });
          found.add(Buffer.from(data.bytes).toString("base64"));
          group.release(data);
        }),
      );
    }
    assert.equal(found.size, 1, `${algorithm} gives one result`);
    if (algorithm === "direct" || algorithm === "scatter") canonical.add([...found][0] ?? "");
  }
  assert.equal(canonical.size, 1, "direct and scatter give the same bits");
});

test("ring and halving send no byte twice; small messages go in few rounds, large ones in parts", () => {
  const large = { kind: "allReduce", count: 2 ** 22, dtype: "float32", reduction: "sum" } as const;
  const member = { rank: 0, size: 8, shared: false };
  for (const schedule of schedulesFor(large, member)) {
    if (!["ring", "halving", "scatter"].includes(schedule.algorithm)) continue;
    assert.equal(elementsSent(schedule), (2 * large.count * 7) / 8, schedule.algorithm);
  }
  const small = { ...large, count: 16 };
  const chosen = (request: Collective, shared: boolean) =>
    chooseSchedule(request, { ...member, shared }, DEFAULT_COSTS).schedule.algorithm;
  assert.equal(chosen(large, true), "shared");
  assert.ok(["ring", "halving", "scatter"].includes(chosen(large, false)));
  assert.ok(["direct", "tree", "halving"].includes(chosen(small, false)));
});

test("a thousand ranks meet in one process", async () => {
  const size = 1024;
  const network = new SimulatedNetwork({ size });
  const request = { kind: "allReduce", count: 4, dtype: "float32", reduction: "sum" } as const;
  await Promise.all(
    network.transports.map(async (transport) => {
      const group = new Group({ engine, transport });
      const data = await group.allocate(16);
      const values = new Float32Array(data.bytes.buffer, data.bytes.byteOffset, 4).fill(1);
      await group.run(request, { data, algorithm: "halving" });
      assert.deepEqual([...values], [size, size, size, size]);
    }),
  );
  assert.ok(network.elapsedUs < 1000, `${network.elapsedUs} virtual µs`);
});

for (const machines of [
  [
    [0, 1],
    [2, 3],
  ],
  [[0, 1, 2], [3]],
  [[0], [1, 2], [3, 4, 5]],
]) {
  const shape = machines.map(({ length }) => length).join(", ");
  for (const inPlace of [true, false]) {
    test(`over machines of ${shape} ranks each byte crosses once a machine, ${inPlace ? "in place" : "by messages"}`, async () => {
      const size = machines.flat().length;
      const collective = { kind: "allReduce", count: 4096, dtype: "float32" } as const;
      const request = { ...collective, reduction: "mean" } as const;
      const sums = machines.flat().map((rank) => {
        const member = { rank, size, shared: inPlace, machines };
        const schedule = schedulesFor(request, member).find(isHierarchical);
        assert.ok(schedule);
        const mates = machines.find((ranks) => ranks.includes(rank)) ?? [];
        return bytesTo(schedule, (peer) => !mates.includes(peer));
      });
      const crossed = sums.reduce((a, b) => a + b);
      // Out of each machine all but its share of the parts, then its share to each other machine.
      assert.equal(crossed, 2 * (machines.length - 1) * 4 * request.count);
      const { groups, network, close } = simulatedRanks(engine, size, inPlace, machines);
      await Promise.all(
        groups.map(async (group) => {
          const data = await group.allocate(4 * request.count);
          const values = new Float32Array(data.bytes.buffer, data.bytes.byteOffset, request.count);
          values.fill(group.rank + 1);
          await group.run(request, { data, algorithm: "hierarchical" });
          assert.ok(values.every((value) => value === (size + 1) / 2));
        }),
      );
      if (inPlace) assert.equal(network.bytes, crossed);
      await close();
    });
  }
}

function isHierarchical({ algorithm }: Schedule): boolean {
  return algorithm === "hierarchical";
}

function bytesTo({ steps }: Schedule, isMeant: (peer: number) => boolean): number {
  const sends = steps.flatMap((step) => (step.do === "exchange" ? step.sends : []));
  return sends.reduce((sum, { peer, span }) => sum + (isMeant(peer) ? 4 * span.length : 0), 0);
}

test("the cost model goes over machines for large messages, unless it is slow within them", () => {
  const machines = [
    [0, 1, 2, 3],
    [4, 5, 6, 7],
  ];
  const member = { rank: 0, size: 8, shared: true, machines };
  const large = { kind: "allReduce", count: 2 ** 22, dtype: "float32", reduction: "sum" } as const;
  const algorithmOf = (request: Collective, costs: CostModel) =>
    chooseSchedule(request, member, costs).schedule.algorithm;
  assert.equal(algorithmOf(large, DEFAULT_COSTS), "hierarchical");
  assert.equal(
    algorithmOf({ kind: "allGather", count: 2 ** 22, dtype: "int8" }, DEFAULT_COSTS),
    "hierarchical",
  );
  const slowBarrier = { ...DEFAULT_COSTS.within, barrierUs: 1e7 };
  assert.notEqual(algorithmOf(large, { ...DEFAULT_COSTS, within: slowBarrier }), "hierarchical");
  assert.match(
    formatCosts(DEFAULT_COSTS),
    /within a machine: .*GB\/s.*; between machines: .*GB\/s/,
  );
});

test("all ranks of all machines measure the same costs", async () => {
  const machines = [[0, 1, 2], [3]];
  const { groups, close } = simulatedRanks(engine, 4, true, machines);
  const [first, ...others] = await Promise.all(groups.map(measureCosts));
  for (const other of others) assert.deepEqual(other, first);
  for (const { messageUs, barrierUs } of [first?.within, first?.between].flatMap((l) => l ?? [])) {
    assert.ok(messageUs > 0 && barrierUs > 0);
  }
  await close();
});

test("runs that take turns with staging memory see no value of another run, in any order of arrival", async () => {
  const [size, count] = [3, 500];
  const { groups, close } = simulatedRanks(engine, size, true);
  const collective = { kind: "allReduce", count, dtype: "float32", reduction: "sum" } as const;
  const results = new Map<string, Set<string>>();
  await Promise.all(
    groups.map(async (group) => {
      const data = await group.allocate(4 * count);
      const values = new Float32Array(data.bytes.buffer, data.bytes.byteOffset, count);
      for (const algorithm of ["staged", "shared"] as const) {
        const prepared = await group.prepare(collective, { data, algorithm });
        for (let run = 0; run < 7; run++) {
          for (let i = 0; i < count; i++) values[i] = Math.sin(i * (group.rank + 1)) * 10 ** run;
          await prepared.run();
          const found = results.get(`run ${run}`) ?? new Set();
          results.set(`run ${run}`, found.add(Buffer.from(data.bytes).toString("base64")));
        }
        prepared.close();
      }
    }),
  );
  assert.equal(results.size, 7);
  for (const [run, found] of results) assert.equal(found.size, 1, run);
  await close();
});

test("what runs once is not given memory of its own that peers see", async () => {
  const member = { rank: 0, size: 4, shared: true };
  const small = { kind: "allReduce", count: 16, dtype: "float32", reduction: "sum" } as const;
  const chosen = (once: boolean) =>
    chooseSchedule(small, member, DEFAULT_COSTS, { once }).schedule.algorithm;
  assert.deepEqual([chosen(false), chosen(true)], ["staged", "shared"]);
});

test("memory is seen within a machine, and in subgroups by the names that ranks have there", async () => {
  const machines = [
    [0, 1],
    [2, 3, 4],
  ];
  const { groups, close } = simulatedRanks(engine, 5, true, machines);
  await Promise.all(
    groups.map(async (group) => {
      const { rank, transport } = group;
      assert.deepEqual(transport.machines, machines);
      const data = await group.allocate(4);
      data.bytes[0] = rank;
      await group.barrier();
      for (const peer of [0, 1, 2, 3, 4]) {
        if (peer < 2 === rank < 2) assert.equal(data.of(peer).bytes[0], peer);
        else assert.throws(() => data.of(peer), /INVALID_BINDING|cannot be read here/);
      }
      if (rank < 2) return;
      const local = await group.subgroup([4, 3, 2]);
      assert.deepEqual(local.transport.machines, [[0, 1, 2]]);
      const seen = await local.allocate(4);
      seen.bytes[0] = rank;
      await local.barrier();
      assert.equal(seen.of(0).bytes[0], 4);
      assert.equal(seen.isShared, true);
    }),
  );
  const across = await Promise.all([1, 3].map(async (rank) => groups[rank]?.subgroup([3, 1])));
  assert.deepEqual(across[0]?.transport.machines, [[0], [1]]);
  await close();
});

test("a group may work on memory that another owns, and leaves it open", async () => {
  const { groups, close } = simulatedRanks(engine, 2, true);
  await Promise.all(
    groups.map(async (group) => {
      const memory = engine.allocateHost(40);
      const values = new Float32Array(memory.bytes.buffer, memory.bytes.byteOffset, 10);
      values.fill(group.rank + 1);
      const data = group.borrow(memory);
      assert.throws(() => data.of(1 - group.rank), /cannot be read here/);
      await group.run(
        { kind: "allReduce", count: 10, dtype: "float32", reduction: "sum" },
        { data },
      );
      group.release(data);
      assert.deepEqual([...values], Array(10).fill(3));
      memory.close();
    }),
  );
  await close();
});
