/**
 * A whole node is lost, memory and all, while its ranks alone look after a part of the state: in
 * every phase of a step. The others go on, with a replacement or without, and the bits are those of
 * one process. Where a node is lost together with its buddies, the survivors say so.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createOrtEngine } from "../../src/engine/index.ts";
import { LockstepError } from "../../src/errors.ts";
import { mlp } from "../../src/nn/index.ts";
import type { Deed } from "../support/mortal.ts";
import { CLASSES } from "../support/small-models.ts";
import { Course, Crew, deedOf, type Nodes, type Sharing } from "./crew.ts";

const cpu = createOrtEngine({ threads: 1 });
const course = new Course(
  cpu,
  mlp({ inputs: 64, hidden: [48, 48], outputs: CLASSES, dropout: 0.1 }),
);
after(async () => {
  await course.close();
  await cpu.close();
});

const PAIRS: Nodes = [
  [0, 1],
  [2, 3],
];
const SINGLES: Nodes = [[0], [1], [2]];

const WAYS: Readonly<Record<string, readonly [Sharing, Nodes]>> = Object.fromEntries(
  ([1, 2, 3] as const).flatMap((zero) => [
    [`zero ${zero} over 2 nodes of 2`, [{ zero, parallel: { shard: 4 } }, PAIRS]],
    [`zero ${zero} over 3 nodes of 1`, [{ zero, parallel: { shard: 3 } }, SINGLES]],
  ]),
);

/** The phases of a step, by their deeds. */
const PHASES: Readonly<Record<string, (deeds: readonly Deed[]) => number>> = {
  "forward pass": () => 0,
  "exchange of gradients": ({ length }) => Math.floor(length / 3),
  "second half": ({ length }) => Math.floor((2 * length) / 3),
  "sums to buddies": (deeds) => firstUpdate(deeds) - 8,
  "exchange of squares, before the decision": (deeds) => firstUpdate(deeds) - 2,
  "first update": firstUpdate,
  "last update": (deeds) => deeds.lastIndexOf("run"),
  "messages of the commit": (deeds) => deeds.lastIndexOf("run") + 1,
  "end of the step": ({ length }) => length,
};

function firstUpdate(deeds: readonly Deed[]): number {
  return deedOf(deeds, { update: 0 }) as number;
}

/** A crew that has made a step. */
async function started(sharing: Sharing, nodes: Nodes): Promise<Crew> {
  const crew = new Crew(course, sharing, nodes);
  await crew.start();
  await crew.step();
  return crew;
}

for (const [way, [sharing, nodes]] of Object.entries(WAYS)) {
  test(`${way}: a node is lost in any phase of a step, and no bit changes`, async () => {
    const outcomes = new Set<number>();
    for (const [turn, [phase, deedIn]] of Object.entries(PHASES).entries()) {
      const crew = await started(sharing, nodes);
      try {
        const node = turn % nodes.length;
        const rank = (nodes[node] ?? []).at(-1) as number;
        const deed = deedIn(crew.deeds[rank] ?? []);
        assert.equal(await crew.step({ rank, deed, nodes: [node] }), false);
        const isReplaced = turn % 2 === 0;
        assert.ok(await crew.meetAgain(undefined, isReplaced ? nodes : nodes.slice(0, -1)));
        outcomes.add(crew.steps);
        await crew.finish(`node ${node} is lost in the ${phase}`);
      } finally {
        await crew.close();
      }
    }
    assert.deepEqual(
      [...outcomes].toSorted((a, b) => a - b),
      [1, 2],
      "before and after the decision",
    );
  });
}

/** Zero 3 over three nodes: the buddy of a rank is on the next node. */
const [SHARDED] = WAYS["zero 3 over 3 nodes of 1"] as readonly [Sharing, Nodes];
const duringUpdate = (crew: Crew) => ({
  rank: 0,
  deed: firstUpdate(crew.deeds[0] ?? []) + 1,
  nodes: [0],
});

async function saysLost(crew: Crew, nodes: Nodes): Promise<void> {
  for (const error of await crew.meetInVain(nodes)) {
    assert.ok(error instanceof LockstepError);
    assert.equal(error.code, "PEER_LOST");
    assert.match(error.message, /neither a worker of their machine nor its buddy/);
    assert.match(error.hint ?? "", /--resume/);
  }
}

test("a node is lost together with its buddy's: survivors and newcomers say so", async () => {
  const crew = await started(SHARDED, SINGLES);
  try {
    assert.equal(await crew.step({ ...duringUpdate(crew), nodes: [0, 1] }), false);
    await saysLost(crew, SINGLES);
  } finally {
    await crew.close();
  }
});

test("without buddies a lost node is the end, and the survivors say so", async () => {
  const crew = await started({ ...SHARDED, buddies: false }, SINGLES);
  try {
    assert.equal(await crew.step(duringUpdate(crew)), false);
    await saysLost(crew, SINGLES);
  } finally {
    await crew.close();
  }
});

test("another node is lost while the rest meet again: they go on, or say that its buddy is lost too", async () => {
  const four: Nodes = [[0], [1], [2], [3]];
  const sharing = { ...SHARDED, parallel: { shard: 4 } };
  const whole = await started(sharing, four);
  await whole.step(duringUpdate(whole));
  assert.ok(await whole.meetAgain());
  const counts = whole.deeds.map(({ length }) => length);
  await whole.close();
  // Of the new group, rank 0 is the buddy of the lost node, rank 1 another one whose buddy lives,
  // and rank 3 the newcomer.
  const [early, end] = [
    (count: number) => [Math.floor(count / 2)],
    // Some know by then that the new group is whole, and others do not.
    (count: number) => [count - 2, count],
  ];
  for (const [rank, isLost, deedsOf] of [
    [0, true, early],
    [1, false, early],
    [1, false, end],
    [3, false, end],
  ] as const) {
    const count = counts[rank] as number;
    for (const deed of deedsOf(count)) {
      const crew = await started(sharing, four);
      try {
        await crew.step(duringUpdate(crew));
        assert.equal(await crew.meetAgain({ rank, deed, nodes: [rank] }), false);
        if (isLost) {
          await saysLost(crew, four);
          continue;
        }
        assert.ok(await crew.meetAgain(), `rank ${rank}, deed ${deed} of ${count}`);
        await crew.finish(`rank ${rank}, deed ${deed} of ${count}`);
      } finally {
        await crew.close();
      }
    }
  }
});

test("a node is lost, and as soon as the rest have met, that of its buddy: the new buddies are there", async () => {
  const crew = await started(SHARDED, SINGLES);
  try {
    await crew.step(duringUpdate(crew));
    assert.ok(await crew.meetAgain());
    assert.equal(await crew.step({ rank: 0, deed: 0, nodes: [0] }), false);
    assert.ok(await crew.meetAgain(undefined, [[0], [1]]));
    assert.equal(await crew.step({ rank: 1, deed: 5, nodes: [1] }), false);
    assert.ok(await crew.meetAgain(undefined, [[0]]));
    await crew.finish();
  } finally {
    await crew.close();
  }
});

test("one worker of a node is lost in the middle of its update: its node reads its memory", async () => {
  for (const way of ["zero 1 over 2 nodes of 2", "zero 3 over 2 nodes of 2"]) {
    const [sharing, nodes] = WAYS[way] as readonly [Sharing, Nodes];
    // So it is its memory, and no buddy, that is read.
    const alone = { ...sharing, buddies: false };
    for (const deedIn of [PHASES["first update"], PHASES["end of the step"]]) {
      const crew = await started(alone, nodes);
      try {
        const deed = deedIn?.(crew.deeds[3] ?? []) as number;
        assert.equal(await crew.step({ rank: 3, deed }), false);
        assert.ok(await crew.meetAgain(undefined, [[0, 1], [2]]));
        await crew.finish(way);
      } finally {
        await crew.close();
      }
    }
  }
});
