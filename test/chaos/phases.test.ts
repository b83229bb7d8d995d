/**
 * A rank is killed in each phase of a step, and another one while the rest meet again: at deeds all
 * over that meeting, the finishing of a lost rank's commit and the transfer of the state among them. In
 * each phase a rank is stopped, and one is cut off: for a while, and until the others go on without
 * it. The bits are those of one process.
 */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { createOrtEngine } from "../../src/engine/index.ts";
import { mlp } from "../../src/nn/index.ts";
import { CLASSES } from "../support/small-models.ts";
import {
  type Cause,
  Course,
  Crew,
  deedOf,
  type Fault,
  failAt,
  type Nodes,
  type Phase,
  RANKS,
  type Sharing,
  WAYS,
} from "./crew.ts";

const cpu = createOrtEngine({ threads: 1 });
const course = new Course(cpu);
after(async () => {
  await course.close();
  await apart.close();
  await cpu.close();
});

const NEWCOMER = RANKS - 1;

/** Every phase of a step that a way of sharing has. */
const PHASES: Readonly<Record<string, readonly Phase[]>> = {
  data: ["forward", { message: 0 }, { message: 1 }, { update: 0 }, { update: 1 }],
  "zero 1": [
    "forward",
    { message: 0 },
    { message: 1 },
    { update: 0 },
    { update: 1 },
    { gather: 0 },
  ],
  "zero 2": [
    "forward",
    { message: 0 },
    { message: 1 },
    { update: 0 },
    { update: 1 },
    { gather: 0 },
  ],
  "zero 3": ["forward", { message: 0 }, { message: 1 }, { update: 0 }, { update: 1 }],
};

/** The first deeds, the last, the end, and some between. */
function spread(count: number): number[] {
  const between = [1, 2, 3].map((part) => Math.round((count * part) / 4));
  return [...new Set([0, 1, ...between, count - 1, count])];
}

/** A crew that has made a step. */
async function started(sharing: Sharing): Promise<Crew> {
  const crew = new Crew(course, sharing);
  await crew.start();
  assert.ok(await crew.step());
  return crew;
}

/**
 * Has these faults one after the other: the first in a step, the others in the meetings after it. The crew then
 * makes another step, and all have the bits of one process. Returns the deeds of the last meeting.
 */
async function suffer(crew: Crew, [first, ...others]: readonly [Fault, ...Fault[]]) {
  const { rank, phase = "forward" } = first;
  const deed = deedOf(crew.deeds[rank] ?? [], phase);
  assert.ok(deed !== undefined, `a step has the phase ${JSON.stringify(phase)}`);
  const before = crew.steps;
  assert.equal(await crew.step({ rank, deed }), false);
  for (const { rank: victim, deed: at = 0 } of others) {
    await crew.meetAgain({ rank: victim, deed: at });
  }
  assert.ok(await crew.meetAgain(), "the last meeting succeeds");
  const { deeds } = crew;
  assert.ok(crew.steps === before || crew.steps === before + 1);
  const when = JSON.stringify([first, ...others]);
  await crew.assertAlike(when);
  assert.ok(await crew.step());
  await crew.assertAlike(when);
  return deeds;
}

for (const [way, sharing] of Object.entries(WAYS)) {
  describe(`${way}: no bit changes`, () => {
    for (const phase of PHASES[way] ?? []) {
      test(`when rank 2 is lost: ${JSON.stringify(phase)}`, async () => {
        const crew = await started(sharing);
        try {
          await suffer(crew, [failAt({ rank: 2, phase })]);
        } finally {
          await crew.close();
        }
      });
    }

    for (const [who, rank] of [
      ["the rank that finishes the commit of the lost one", 0],
      ["another survivor", 1],
      ["the newcomer that receives the state", NEWCOMER],
    ] as const) {
      test(`when ${who} is lost too, early and late in the meeting`, async () => {
        const first = failAt({ rank: 1, phase: { update: 0 } });
        const crew = await started(sharing);
        try {
          const deeds = await suffer(crew, [first]);
          const count = deeds[rank]?.length ?? 0;
          assert.ok(count > 3, `${count} deeds`);
          for (const deed of spread(count)) {
            await suffer(crew, [first, failAt({ rank, meeting: 1, deed })]);
          }
        } finally {
          await crew.close();
        }
      });
    }

    test("when a newcomer is lost in three meetings in a row", async () => {
      const lost = [1, 2, 3].map((meeting) =>
        failAt({ rank: NEWCOMER, meeting, deed: 2 * meeting }),
      );
      const crew = await started(sharing);
      try {
        await suffer(crew, [failAt({ rank: 0, phase: { update: 0 } }), ...lost]);
      } finally {
        await crew.close();
      }
    });
  });
}

const SINGLES: Nodes = [[0], [1], [2]];
const apart = new Course(
  cpu,
  mlp({ inputs: 64, hidden: [48, 48], outputs: CLASSES, dropout: 0.1 }),
);
/** One rank on each machine, whose messages are those of a network. */
const APART: Readonly<Record<string, Sharing>> = {
  data: { parallel: { data: RANKS } },
  "zero 1": { zero: 1 },
  "zero 2": { zero: 2 },
  "zero 3": { zero: 3 },
};
const TOGETHER_PHASES: readonly Phase[] = ["forward", { message: 0 }, { message: 1 }];
const APART_PHASES: readonly Phase[] = ["forward", { message: 0 }, { message: 3 }];

/** All that happens to a crew, one after the other, each in a step after two without a fault. */
async function trainThrough(crew: Crew, faults: readonly Fault[]): Promise<void> {
  await crew.start();
  for (const one of faults) {
    // The first step after a meeting has more messages than those that follow.
    await crew.step();
    await crew.step();
    const { rank, phase = "forward", by = "SIGKILL", passes = false } = failAt(one);
    const deed = deedOf(crew.deeds[rank] ?? [], phase);
    assert.ok(deed !== undefined, `a step has the phase ${JSON.stringify(phase)}`);
    const nodes = crew.nodesOf(rank);
    const went = await crew.step({ rank, deed, by, passes, nodes });
    assert.equal(went, passes, `${by} of rank ${rank} in ${JSON.stringify(phase)}`);
    if (!passes) assert.ok(await crew.meetAgain(), "the rest meet a newcomer");
  }
}

/** Each phase twice: the fault passes, and the next one lasts; all ranks have their turn. */
const inEach = (phases: readonly Phase[], by: Cause) =>
  phases.flatMap((phase, turn) => [
    { rank: turn % RANKS, phase, by, passes: true },
    { rank: (turn + 2) % RANKS, phase, by },
  ]);

for (const [ways, phases, by, nodes] of [
  [WAYS, TOGETHER_PHASES, "SIGSTOP", undefined],
  [APART, APART_PHASES, "SIGSTOP", SINGLES],
  [APART, APART_PHASES, "cut", SINGLES],
] as const) {
  for (const [way, sharing] of Object.entries(ways)) {
    // Elsewhere the last updates are runs that a rank does not wait for, and that cannot be held.
    const isHeld = /[12]/.test(way);
    const updates = isHeld ? [{ update: 0 }] : [];
    const gathers = isHeld && nodes !== undefined ? [{ gather: 0 }] : [];
    const where = nodes === undefined ? "one machine" : "three machines";
    test(`${way} on ${where}: ${by} in each phase of a step changes no bit`, async () => {
      const crew = new Crew(nodes === undefined ? course : apart, sharing, nodes);
      try {
        await trainThrough(crew, inEach([...phases, ...updates, ...gathers], by));
        await crew.finish(by, crew.steps + 1);
      } finally {
        await crew.close();
      }
    });
  }
}
