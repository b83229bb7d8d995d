/** Collectives on a thread of their own, over memory that the computing thread made. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Communicator, type ThreadGroup } from "../src/collectives/index.ts";
import { allocateMemory, type Memory } from "../src/memory/index.ts";

const sum = { kind: "allReduce", count: 1000, dtype: "float32", reduction: "sum" } as const;

test("two threads reduce what two others have computed, over shared memory", async () => {
  const name = `communicator-${process.pid}`;
  await withGroups(2, (rank) => ({ kind: "shared-memory", name, rank, size: 2 }), allReduceTwice);
});

test("and over TCP", async () => {
  const listen = { host: "127.0.0.1", token: "a secret of tests" };
  const communicators = [new Communicator(), new Communicator()];
  const addresses = await Promise.all(communicators.map((one) => one.listen(listen)));
  const groups = await Promise.all(
    communicators.map((one, rank) => one.join({ kind: "tcp", addresses, rank, size: 2 })),
  );
  await allReduceTwice(groups);
  await Promise.all(communicators.map((one) => one.close()));
});

test("and over both", async () => {
  const listen = { host: "127.0.0.1", token: "a secret of tests" };
  const communicators = [new Communicator(), new Communicator(), new Communicator()];
  const addresses = await Promise.all(communicators.map((one) => one.listen(listen)));
  const machines = [[0], [1, 2]];
  const meeting = { kind: "machines", name: `both-${process.pid}`, addresses, machines } as const;
  const groups = await Promise.all(
    communicators.map((one, rank) => one.join({ ...meeting, rank, size: 3 })),
  );
  await allReduceTwice(groups);
  await Promise.all(communicators.map((one) => one.close()));
});

test("an abort reaches the other rank while it waits", async () => {
  const name = `communicator-abort-${process.pid}`;
  const meet = (rank: number) => ({ kind: "shared-memory", name, rank, size: 2 }) as const;
  await withGroups(2, meet, async ([first, second]) => {
    assert.ok(first && second);
    const memory = [share(0), share(1)] as const;
    const buffers = await Promise.all([first.adopt(memory[0]), second.adopt(memory[1])]);
    const waiting = await Promise.all([
      first.prepare(sum, { data: buffers[0] }),
      second.prepare(sum, { data: buffers[1] }),
    ]);
    const run = assert.rejects(waiting[0].run(), /Rank 1 aborted: enough/);
    second.abort(new Error("enough"));
    await run;
    assert.match(String(first.signal.reason), /enough/);
    for (const piece of memory) piece.close();
  });
});

async function withGroups(
  size: number,
  meeting: (rank: number) => Parameters<Communicator["join"]>[0],
  body: (groups: readonly ThreadGroup[]) => Promise<void>,
): Promise<void> {
  const communicators = Array.from({ length: size }, () => new Communicator());
  const groups = await Promise.all(
    communicators.map((one, rank) => one.join(meeting(rank), { measure: false })),
  );
  await body(groups);
  await Promise.all(communicators.map((one) => one.close()));
}

async function allReduceTwice(groups: readonly ThreadGroup[]): Promise<void> {
  const memories = groups.map(({ rank }) => share(rank));
  await Promise.all(
    groups.map(async (group, rank) => {
      const data = await group.adopt(memories[rank] as Memory);
      const prepared = await group.prepare(sum, { data });
      const { buffer, byteOffset } = (memories[rank] as Memory).bytes;
      const values = new Float32Array(buffer, byteOffset, sum.count);
      for (const round of [1, 2]) {
        values.fill(rank + round);
        await prepared.run();
        const ranks = (groups.length * (groups.length - 1)) / 2;
        assert.ok(values.every((value) => value === groups.length * round + ranks));
      }
      await prepared.close();
    }),
  );
  for (const memory of memories) memory.close();
}

let shared = 0;

function share(rank: number): Memory {
  shared += 1;
  return allocateMemory(4000, { shareAs: `communicator-${process.pid}-${shared}-${rank}` });
}
