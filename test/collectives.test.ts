/**
 * What collectives promise beyond right results: errors with a name, bounds, and few bytes between
 * nodes.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import {
  type Collective,
  DEFAULT_COSTS,
  Group,
  measureCosts,
  partsOf,
  scheduleOf,
} from "../src/collectives/index.ts";
import { createOrtEngine } from "../src/engine/index.ts";
import type { LockstepError } from "../src/errors.ts";
import { SimulatedNetwork } from "../src/transport/index.ts";
import { allocate, runOnce, simulatedRanks } from "./support/ranks.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

const FIVE = Array<number>(5).fill(100);
const REQUESTS: readonly Collective[] = [
  { kind: "allGather", dtype: "float32", counts: FIVE },
  { kind: "allToAll", dtype: "float32", sendCounts: FIVE, receiveCounts: FIVE },
];

const TWO_NODES = [
  [0, 1, 2],
  [3, 4],
];

test("a rank that is killed in any phase of any collective is named on all others", async () => {
  const [size, nodes] = [5, TWO_NODES];
  for (const request of REQUESTS) {
    for (const inPlace of [true, false]) {
      for (let message = 0; message < 10; message++) {
        const options = { jitterUs: 50, seed: message };
        const { groups, network } = simulatedRanks(engine, size, inPlace, nodes, options);
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
        const runs = groups.map(async (group) => {
          const [data, into] = [await allocate(group, 2000), await allocate(group, 2000)];
          const prepared = group.prepare(request, { data, into });
          for (let round = 0; round < 20; round++) await prepared.run();
          finished.add(group.rank);
        });
        runs[victim]?.catch(() => undefined);
        const others = runs.flatMap((run, rank) => (rank === victim ? [] : [{ run, rank }]));
        await Promise.allSettled(others.map(({ run }) => run));
        assert.ok(finishedBefore !== undefined, "the rank was killed");
        for (const { run, rank } of others) {
          if (finishedBefore.has(rank)) {
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

test("a thousand ranks meet in one process", async () => {
  const size = 1024;
  const network = new SimulatedNetwork({ size });
  await Promise.all(
    network.transports.map(async (transport, rank) => {
      const group = new Group({ engine, transport });
      const [data, into] = [await allocate(group, 64), await allocate(group, 64)];
      // Every rank sends its number to the three ranks behind it.
      const amounts = (isPeer: (distance: number) => boolean) =>
        Array.from({ length: size }, (_, peer) => (isPeer((peer - rank + size) % size) ? 1 : 0));
      const sendCounts = amounts((distance) => distance >= 1 && distance <= 3);
      const receiveCounts = amounts((distance) => distance >= size - 3);
      new Int32Array(data.bytes.buffer, data.bytes.byteOffset, 3).fill(rank);
      const request = { kind: "allToAll", dtype: "int32", sendCounts, receiveCounts } as const;
      await runOnce(group, request, { data, into });
      await group.barrier();
      const found = new Int32Array(into.bytes.buffer, into.bytes.byteOffset, 3);
      const before = [3, 2, 1].map((distance) => (rank - distance + size) % size);
      assert.deepEqual(
        [...found],
        before.toSorted((a, b) => a - b),
      );
    }),
  );
  assert.ok(network.elapsedUs < 1000, `${network.elapsedUs} virtual µs`);
});

/** Returns all ways to put ranks on nodes with consecutive ranks. */
function placements(size: number, first = 0): number[][][] {
  if (first === size) return [[]];
  return Array.from({ length: size - first }, (_, index) => index + 1).flatMap((count) => {
    const node = Array.from({ length: count }, (_, place) => first + place);
    return placements(size, first + count).map((rest) => [node, ...rest]);
  });
}

test("schedules over any nodes: every message is received, and each rank gets each part once", () => {
  for (let size = 1; size <= 7; size++) {
    const counts = Array.from({ length: size }, (_, rank) => rank + 1);
    const starts = partsOf(counts).map(({ start }) => start);
    for (const nodes of placements(size)) {
      for (const shared of [true, false]) {
        const steps = counts.map((_, rank) =>
          scheduleOf({ kind: "allGather", dtype: "int8", counts }, { rank, nodes, shared }),
        );
        const sent: string[] = [];
        const received: string[] = [];
        const written: string[] = [];
        const arrived = new Set<string>();
        const taken: [string, boolean][] = [];
        for (const [rank, own] of steps.entries()) {
          for (const step of own) {
            if (step.do === "barrier") continue;
            if (step.do === "copy") {
              const [part, from] = [starts.indexOf(step.to.start), step.from.rank];
              written.push(`${part} at ${rank}`);
              taken.push([`${part} at ${from}`, part === from]);
              continue;
            }
            for (const { peer, span } of step.sends) sent.push(`${rank} to ${peer} ${span.start}`);
            for (const { peer, span } of step.receives) {
              received.push(`${peer} to ${rank} ${span.start}`);
              written.push(`${starts.indexOf(span.start)} at ${rank}`);
              arrived.add(`${starts.indexOf(span.start)} at ${rank}`);
            }
          }
        }
        assert.deepEqual(received.toSorted(), sent.toSorted());
        const wanted = counts.flatMap((_, part) =>
          counts.flatMap((__, rank) => (rank === part ? [] : [`${part} at ${rank}`])),
        );
        assert.deepEqual(written.toSorted(), wanted.toSorted(), JSON.stringify(nodes));
        for (const [place, isOwn] of taken) assert.ok(isOwn || arrived.has(place), place);
      }
    }
  }
});

for (const nodes of [
  [
    [0, 1],
    [2, 3],
  ],
  [[0, 1, 2], [3]],
  [[0], [1, 2], [3, 4, 5]],
]) {
  const shape = nodes.map(({ length }) => length).join(", ");
  test(`over nodes of ${shape} ranks each byte crosses the network once for each node`, async () => {
    const size = nodes.flat().length;
    const counts = nodes.flat().map((rank) => 100 * (rank + 1));
    const total = counts.reduce((a, b) => a + b);
    const request = { kind: "allGather", dtype: "float32", counts } as const;
    const { groups, network, close } = simulatedRanks(engine, size, true, nodes);
    await Promise.all(
      groups.map(async (group, rank) => {
        const data = await allocate(group, 4 * total);
        const values = new Float32Array(data.bytes.buffer, data.bytes.byteOffset, total);
        const { start, length } = partsOf(counts)[rank] as { start: number; length: number };
        values.fill(rank + 1, start, start + length);
        await runOnce(group, request, { data });
        const expected = counts.flatMap((count, owner) => Array<number>(count).fill(owner + 1));
        assert.deepEqual([...values], expected);
      }),
    );
    assert.equal(network.bytes, 4 * total * (nodes.length - 1));
    await close();
  });
}

test("requests that do not fit the group or its memory are refused", async () => {
  const { groups, close } = simulatedRanks(engine, 2, true);
  await Promise.all(
    groups.map(async (group) => {
      const data = await allocate(group, 40);
      const gather = (counts: number[], byteOffset = 0) =>
        group.prepare({ kind: "allGather", dtype: "float32", counts }, { data, byteOffset });
      for (const counts of [[1], [1, 2, 3], [-1, 2], [0.5, 1]]) {
        assert.throws(() => gather(counts), { code: "INVALID_OPTION" });
      }
      assert.throws(() => gather([5, 6]), { code: "INVALID_BINDING" });
      assert.throws(() => gather([5, 5], 4), { code: "INVALID_BINDING" });
      assert.throws(() => gather([1, 1], -4), { code: "INVALID_BINDING" });
      const two = { sendCounts: [1, 1], receiveCounts: [1, 10] };
      const exchange = { kind: "allToAll", dtype: "float32", ...two } as const;
      assert.throws(() => group.prepare(exchange, { data }), { code: "INVALID_OPTION" });
      assert.throws(() => group.prepare(exchange, { data, into: data }), {
        code: "INVALID_BINDING",
      });
    }),
  );
  await close();
});

test("all ranks of all nodes measure the same costs, and one node measures nothing", async () => {
  const several = simulatedRanks(engine, 4, true, [[0, 1, 2], [3]]);
  const costs = await Promise.all(several.groups.map(({ transport }) => measureCosts(transport)));
  for (const { messageUs, wireUsPerByte } of costs) {
    assert.ok(messageUs > 0 && wireUsPerByte > 0);
    assert.deepEqual([messageUs, wireUsPerByte], Object.values(costs[0] ?? {}));
  }
  await several.close();
  const { groups, network, close } = simulatedRanks(engine, 4, true);
  for (const { transport } of groups)
    assert.deepEqual(await measureCosts(transport), DEFAULT_COSTS);
  assert.equal(network.messages, 0);
  await close();
});

test("memory is visible within a node, and in subgroups by the ranks' numbers there", async () => {
  const nodes = [
    [0, 1],
    [2, 3, 4],
  ];
  const { groups, close } = simulatedRanks(engine, 5, true, nodes);
  await Promise.all(
    groups.map(async (group) => {
      const { rank, transport } = group;
      assert.deepEqual(transport.nodes, nodes);
      const data = await allocate(group, 4);
      data.bytes[0] = rank;
      await group.barrier();
      for (const peer of [0, 1, 2, 3, 4]) {
        if (peer < 2 === rank < 2) assert.equal(data.of(peer).bytes[0], peer);
        else assert.throws(() => data.of(peer), /INVALID_BINDING|cannot be read here/);
      }
      if (rank < 2) return;
      const local = await group.subgroup([4, 3, 2]);
      assert.deepEqual(local.transport.nodes, [[0, 1, 2]]);
      const seen = await allocate(local, 4);
      seen.bytes[0] = rank;
      await local.barrier();
      assert.equal(seen.of(0).bytes[0], 4);
      assert.equal(seen.isShared, true);
    }),
  );
  const across = await Promise.all([1, 3].map(async (rank) => groups[rank]?.subgroup([3, 1])));
  assert.deepEqual(across[0]?.transport.nodes, [[0], [1]]);
  await close();
});

/** The ten elements that two ranks gather; each contributes its rank and 1. */
const HALVES = [1, 1, 1, 1, 1, 2, 2, 2, 2, 2];

test("registered memory outlives its group, and peers map it again where its handle opens it", async () => {
  const gather = { kind: "allGather", dtype: "float32", counts: [5, 5] } as const;
  const first = simulatedRanks(engine, 2, true);
  const memories = await Promise.all(
    first.groups.map(async (group) => {
      const memory = group.newMemory(40);
      const values = new Float32Array(memory.bytes.buffer, memory.bytes.byteOffset, 10);
      values.fill(group.rank + 1);
      assert.equal(group.canRegister(memory), true);
      const data = await group.register(memory);
      assert.ok(data.isShared && data.of(1 - group.rank) !== memory);
      await runOnce(group, gather, { data });
      // Its name is gone. On Linux others open it by the descriptor of its owner.
      assert.equal(memory.memory.name, undefined);
      assert.equal(group.canRegister(memory), process.platform === "linux");
      return { memory, values };
    }),
  );
  await first.close();
  if (process.platform === "linux") {
    const again = simulatedRanks(engine, 2, true);
    await Promise.all(
      again.groups.map(async (group, rank) => {
        const { memory, values } = memories[rank] as (typeof memories)[number];
        values.fill(rank + 1);
        await runOnce(group, gather, { data: await group.register(memory) });
        assert.deepEqual([...values], HALVES);
      }),
    );
    await again.close();
  }
  const second = simulatedRanks(engine, 2, false);
  await Promise.all(
    second.groups.map(async (group, rank) => {
      const { memory, values } = memories[rank] as (typeof memories)[number];
      assert.deepEqual([...values], HALVES);
      values.fill(10 + rank, 5 * rank, 5 * rank + 5);
      await runOnce(group, gather, { data: await group.register(memory) });
      assert.deepEqual([...values], [...Array<number>(5).fill(10), ...Array<number>(5).fill(11)]);
    }),
  );
  await second.close();
  for (const { memory } of memories) memory.close();
});

test("a group may work on memory that another one owns, and leaves it open", async () => {
  const { groups, close } = simulatedRanks(engine, 2, true);
  await Promise.all(
    groups.map(async (group) => {
      const memory = engine.allocateHost(40);
      const values = new Float32Array(memory.bytes.buffer, memory.bytes.byteOffset, 10);
      values.fill(group.rank + 1);
      const data = group.borrow(memory);
      assert.throws(() => data.of(1 - group.rank), /cannot be read here/);
      await runOnce(group, { kind: "allGather", dtype: "float32", counts: [5, 5] }, { data });
      group.release(data);
      assert.deepEqual([...values], HALVES);
      memory.close();
    }),
  );
  await close();
});
