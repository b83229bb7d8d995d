/**
 * A rank is lost in each phase of a step, and another one while the rest meet again: at deeds all
 * over that meeting, the finishing of a lost rank's commit and the transfer of the state among them. The
 * bits are those of one process.
 */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { createOrtEngine } from "../../src/engine/index.ts";
import { bitsOfOne, Crew, deedOf, type Fault, failAt, type Phase, RANKS, WAYS } from "./crew.ts";

const cpu = createOrtEngine({ threads: 1 });
after(() => cpu.close());

const STEP = 1;
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

/** Trains with these faults, one after the other. Returns the bits at the end. */
async function train(way: string, faults: readonly Fault[]) {
  const crew = new Crew(cpu, WAYS[way] ?? {});
  try {
    await crew.start();
    await crew.step();
    const before = crew.deeds;
    const [first, ...others] = faults;
    if (first !== undefined) {
      const { rank, phase = "forward" } = first;
      const deed = deedOf(before[rank] ?? [], phase);
      assert.ok(deed !== undefined, `a step of ${way} has the phase ${JSON.stringify(phase)}`);
      assert.equal(crew.steps, first.step);
      assert.equal(await crew.step({ rank, deed }), false);
      for (const { rank: victim, deed: at = 0 } of others) {
        await crew.meetAgain({ rank: victim, deed: at });
      }
      assert.ok(await crew.meetAgain(), "the last meeting succeeds");
    }
    const deeds = crew.deeds;
    return { bits: await crew.finish(), deeds };
  } finally {
    await crew.close();
  }
}

for (const way of Object.keys(WAYS)) {
  describe(`${way}: no bit changes`, () => {
    const expected = bitsOfOne(cpu, WAYS[way] ?? {});
    for (const phase of PHASES[way] ?? []) {
      test(`when rank 2 is lost: ${JSON.stringify(phase)}`, async () => {
        const { bits } = await train(way, [failAt({ rank: 2, step: STEP, phase })]);
        assert.deepEqual(bits, await expected);
      });
    }

    for (const [who, rank] of [
      ["the rank that finishes the commit of the lost one", 0],
      ["another survivor", 1],
      ["the newcomer that receives the state", NEWCOMER],
    ] as const) {
      test(`when ${who} is lost too, early and late in the meeting`, async () => {
        const first = failAt({ rank: 1, step: STEP, phase: { update: 0 } });
        const { deeds } = await train(way, [first]);
        const count = deeds[rank]?.length ?? 0;
        assert.ok(count > 3, `${count} deeds`);
        for (const deed of spread(count)) {
          const { bits } = await train(way, [first, failAt({ rank, meeting: 1, deed })]);
          assert.deepEqual(
            bits,
            await expected,
            `rank ${rank} is lost at deed ${deed} of ${count}`,
          );
        }
      });
    }

    test("when a newcomer is lost in three meetings in a row", async () => {
      const lost = [1, 2, 3].map((meeting) =>
        failAt({ rank: NEWCOMER, meeting, deed: 2 * meeting }),
      );
      const first = failAt({ rank: 0, step: STEP, phase: { update: 0 } });
      const { bits } = await train(way, [first, ...lost]);
      assert.deepEqual(bits, await expected);
    });
  });
}
