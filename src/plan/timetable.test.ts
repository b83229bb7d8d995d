/** Timetables: the bubbles of their papers, their text, and plans in which nobody reads too early. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { SCHEDULES, type ScheduleName, timetableOf } from "./schedules.ts";
import {
  bubbleOf,
  checkTimetable,
  endsOf,
  formatTimetable,
  formatTurn,
  type Needs,
  type PlannedTimetable,
  parseTimetable,
  planTimetable,
  ranksOfStages,
  splitStages,
  type Timetable,
  type Turn,
} from "./timetable.ts";

/** Each stage needs the one before it forward, and the one after it backward. */
function chain(timetable: Timetable): Needs {
  const last = ranksOfStages(timetable, timetable.length).length - 1;
  return ({ stage, direction }) => {
    if (direction === "F") return stage === 0 ? [] : [{ stage: stage - 1, direction: "F" }];
    const forward = { stage, direction: "F" } as const;
    if (direction === "W") return [forward, { stage, direction: "B" }];
    const after = { stage: stage + 1, direction: "B" } as const;
    return stage === last ? [forward] : [forward, after];
  };
}

/** A forward part takes 1, and so do both parts of the backward pass; together they take 2. */
function secondsIn(timetable: Timetable): (turn: Turn) => number {
  const isSplit = splitStages(timetable);
  return ({ stage, direction }) => (direction === "B" && !isSplit.has(stage) ? 2 : 1);
}

function idleOf(timetable: Timetable): number {
  const needs = chain(timetable);
  return bubbleOf(planTimetable(timetable, needs), needs, secondsIn(timetable));
}

function assertClose(found: number, wanted: number, what: string): void {
  assert.ok(Math.abs(found - wanted) < 1e-12, `${what}: ${found}, not ${wanted}`);
}

const SIZES = [2, 3, 4, 8].flatMap((ranks) =>
  [1, 2, 4].map((times) => ({ ranks, microBatches: ranks * times })),
);

test("bubbles are those of the papers", () => {
  for (const size of SIZES) {
    const { ranks: p, microBatches: m } = size;
    const what = JSON.stringify(size);
    // Huang et al., "GPipe", section 2.3; Narayanan et al., "Megatron-LM", section 2.2.
    assertClose(idleOf(timetableOf("gpipe", size)), (p - 1) / (m + p - 1), `gpipe ${what}`);
    assertClose(idleOf(timetableOf("1f1b", size)), (p - 1) / (m + p - 1), `1f1b ${what}`);
    // Qi et al., "Zero Bubble Pipeline Parallelism", table 2: (p - 1)(F + B - W) for each rank.
    assertClose(idleOf(timetableOf("zb-h1", size)), (p - 1) / (3 * m + p - 1), `zb-h1 ${what}`);
    // Narayanan et al., "Megatron-LM", section 2.2: (p - 1)(F + B) / v for each rank of v stages.
    for (const v of [2, 3] as const) {
      const found = idleOf(timetableOf(`interleaved-${v}`, size));
      assertClose(found, (p - 1) / (v * m + p - 1), `interleaved-${v} ${what}`);
    }
  }
});

test("of zb-v no rank waits between its first part and its last, if there are enough micro-batches", () => {
  // Qi et al., "Zero Bubble Pipeline Parallelism", section 6, and "Pipeline Parallelism with
  // Controllable Memory", section 3: no bubble for F = B = W. What is left is that rank r begins r
  // parts later, and that the last rank ends p - 1 parts after the first.
  for (const ranks of [2, 3, 4, 8]) {
    for (const microBatches of [2 * ranks - 1, 2 * ranks, 3 * ranks + 1, 4 * ranks]) {
      const timetable = timetableOf("zb-v", { ranks, microBatches });
      const needs = chain(timetable);
      const planned = planTimetable(timetable, needs);
      const seconds = secondsIn(timetable);
      const ends = endsOf(planned, needs, seconds);
      for (const [rank, own] of ends.entries()) {
        assert.equal((own[0] as number) - 1, rank, "begins as soon as its first input is there");
        assert.equal(own.at(-1), rank + 6 * microBatches, "works until the end");
      }
      const idle = bubbleOf(planned, needs, seconds);
      assertClose(idle, (ranks - 1) / (6 * microBatches + ranks - 1), `zb-v of ${ranks}`);
    }
  }
});

test("with several stages a rank, the micro-batches in memory are as many as the papers say", () => {
  for (const size of SIZES) {
    const { ranks: p, microBatches: m } = size;
    const slotsOf = (name: ScheduleName) => {
      const timetable = timetableOf(name, size);
      return Math.max(...planTimetable(timetable, chain(timetable)).slots);
    };
    // Half as much each as with one stage a rank. The papers say 3p - 1 and 2p; until a rank knows
    // that others have read what it made, it keeps up to three more.
    assert.ok(slotsOf("interleaved") <= Math.min(2 * m, 3 * p + 1), `interleaved ${p} ${m}`);
    assert.ok(slotsOf("zb-v") <= Math.min(2 * m, 2 * p + 3), `zb-v ${p} ${m}`);
  }
});

test("with slack, ranks wait no longer, keep some micro-batches more, and wait less for slow parts", () => {
  for (const slack of [1, 2] as const) {
    for (const ranks of [2, 3, 4]) {
      const size = { ranks, microBatches: 4 * ranks };
      const [plain, wide] = [timetableOf("zb-h1", size), timetableOf(`zb-h1+${slack}`, size)];
      const plannedOf = (timetable: Timetable) => planTimetable(timetable, chain(timetable));
      assert.ok(idleOf(wide) <= idleOf(plain) + 1e-12);
      assert.ok(Math.max(...plannedOf(wide).slots) <= ranks + 2 * slack - 1);
      // Every third part of a rank takes twice as long, at other times on each.
      const endOf = (timetable: Timetable) => {
        const seconds = secondsIn(timetable);
        const slowly = (turn: Turn) =>
          seconds(turn) * ((turn.microBatch + turn.stage) % 3 === 0 ? 2 : 1);
        return Math.max(...endsOf(plannedOf(timetable), chain(timetable), slowly).flat());
      };
      assert.ok(endOf(wide) <= endOf(plain), `${endOf(wide)} of ${endOf(plain)}`);
    }
  }
});

test("each number of micro-batches has a timetable in which nobody waits for ever", () => {
  for (const name of [...SCHEDULES, "interleaved-3", "zb-h1+2"] as const) {
    for (const ranks of [1, 2, 3, 4, 5]) {
      for (let microBatches = 1; microBatches < 12; microBatches++) {
        const size = { ranks, microBatches };
        const timetable = timetableOf(name, size);
        checkTimetable(timetable, size);
        planTimetable(timetable, chain(timetable));
      }
    }
  }
});

test("of 1f1b as of zb-h1, no rank keeps more micro-batches than there are stages", () => {
  for (const size of SIZES) {
    const slotsOf = (name: "1f1b" | "zb-h1" | "gpipe") => {
      const timetable = timetableOf(name, size);
      return planTimetable(timetable, chain(timetable)).slots;
    };
    const stages = Array.from({ length: size.ranks }, (_, stage) => stage);
    assert.deepEqual(
      slotsOf("gpipe"),
      stages.map(() => size.microBatches),
    );
    // What a stage made lies there until the rank is known to have read it that reads it last.
    for (const name of ["1f1b", "zb-h1"] as const) {
      assert.ok(Math.max(...slotsOf(name)) <= size.ranks + 1, `${name} ${JSON.stringify(size)}`);
    }
  }
});

test("a timetable survives its text", () => {
  for (const name of SCHEDULES) {
    for (const size of SIZES) {
      const timetable = timetableOf(name, size);
      checkTimetable(timetable, size);
      assert.deepEqual(parseTimetable(`\n${formatTimetable(timetable)}\n`), timetable);
    }
  }
});

test("a timetable that is wrong is refused, and says where", () => {
  const size = { ranks: 2, microBatches: 2 };
  const refused = (text: string, why: RegExp) =>
    assert.throws(() => {
      const timetable = parseTimetable(text);
      checkTimetable(timetable, size);
      planTimetable(timetable, chain(timetable));
    }, why);
  const one = "1: 1F0 1B0 1F1 1B1";
  refused("0: 0F0 0F1 0B0 0B1\n2: 1F0", /line 2 begins with "1:"/);
  refused("0: 0F0 F1 0B0 0B1", /"F1" is written as 0F0/);
  refused("0: 0F0 0F1 0B0 0B1", /a line for each of 2 ranks, and this has 1/);
  refused(`0: 0F0 1F1 0B0 0B1\n${one}`, /in one line, and stage 1 in those of 0 and 1/);
  refused(`0: 0F0 0F1 0B0 0B1\n1:`, /each rank computes a stage, and rank 1 none/);
  refused(`0: 0F0 0F1 0B0 0B1\n1: 2F0 2B0`, /all stages from 0 on, and this has 2 without 1/);
  refused(`0: 0F0 0F1 2F0 2B0 0B0 0B1\n${one}`, /rank 0 has 2F for each micro-batch from 0 to 1/);
  refused(`0: 0F0 0B0 0B1\n${one}`, /0F for each micro-batch from 0 to 1 once/);
  refused(`0: 0F0 0F1 0B1 0B0\n${one}`, /0B for each micro-batch from 0 to 1 once, in their order/);
  refused(`0: 0F0 0F1 0B0 0B1 0W1\n${one}`, /0W for each micro-batch/);
  refused(`0: 0F0 0B0 0F1 0B1\n1: 1F0 1F1 1B0 1B1`, /rank 0 would wait for ever before "0B0"/);
});

/** Turns in an order in which one process could compute them, by rank. */
const anyTimetable = fc
  .record({
    ranks: fc.integer({ min: 1, max: 4 }),
    more: fc.array(fc.nat(), { maxLength: 4 }),
    microBatches: fc.integer({ min: 1, max: 5 }),
    split: fc.array(fc.boolean(), { minLength: 8, maxLength: 8 }),
    choices: fc.infiniteStream(fc.nat()),
  })
  .map(({ ranks, more, microBatches, split, choices }): Timetable => {
    const lines = Array.from({ length: ranks }, (): Turn[] => []);
    // Each rank has a stage, and some have more.
    const rankOf = [...lines.keys(), ...more.map((number) => number % ranks)];
    for (let at = rankOf.length - 1; at > 0; at--) {
      const other = (choices.next().value as number) % (at + 1);
      [rankOf[at], rankOf[other]] = [rankOf[other] as number, rankOf[at] as number];
    }
    const done = new Set<string>();
    const directions = (stage: number) =>
      split[stage] === true ? (["F", "B", "W"] as const) : (["F", "B"] as const);
    const all = rankOf.flatMap((_, stage) =>
      Array.from({ length: microBatches }, (__, microBatch) =>
        directions(stage).map((direction): Turn => ({ stage, direction, microBatch })),
      ).flat(),
    );
    const needs = chain(rankOf.map((_, stage) => [{ stage, direction: "F", microBatch: 0 }]));
    for (let left = all; left.length > 0; left = left.filter((turn) => !isDone(turn))) {
      const ready = left.filter((turn) => {
        const { microBatch, direction } = turn;
        const isNext =
          direction === "F" || microBatch === 0 || isDone({ ...turn, microBatch: microBatch - 1 });
        return isNext && needs(turn).every((part) => isDone({ ...part, microBatch }));
      });
      const turn = ready[(choices.next().value as number) % ready.length] as Turn;
      done.add(formatTurn(turn));
      lines[rankOf[turn.stage] as number]?.push(turn);
    }
    return lines;

    function isDone(turn: Turn): boolean {
      return done.has(formatTurn(turn));
    }
  });

/**
 * Runs a plan with ranks of any speeds, which know of each other by messages alone, and checks what
 * lies in the slots when it is read.
 */
function runPlan({ turns }: PlannedTimetable, needs: Needs, choose: (count: number) => number) {
  const at = turns.map(() => 0);
  const messages = new Map<string, number>();
  const count = (key: string, more: number) => messages.set(key, (messages.get(key) ?? 0) + more);
  const rankOf = ranksOfStages(turns, turns.length);
  /** By rank and slot: whose values are there, and which parts have written. */
  const slots = new Map<string, { of: string; parts: Set<string> }>();
  const slotOf = (stage: number, microBatch: number) => {
    const rank = rankOf[stage] as number;
    const turn = turns[rank]?.find((own) => own.stage === stage && own.microBatch === microBatch);
    return `${rank}.${turn?.slot}`;
  };
  for (;;) {
    const ready = turns.flatMap((own, rank) => {
      const turn = own[at[rank] as number];
      const isReady = turn?.awaits.every((from) => (messages.get(`${from}.${rank}`) ?? 0) > 0);
      return turn !== undefined && isReady === true ? [{ rank, turn }] : [];
    });
    if (ready.length === 0) break;
    const { rank, turn } = ready[choose(ready.length)] as (typeof ready)[number];
    for (const from of turn.awaits) count(`${from}.${rank}`, -1);
    const { stage, direction, microBatch } = turn;
    for (const part of needs(turn)) {
      const found = slots.get(slotOf(part.stage, microBatch));
      assert.equal(found?.of, `${part.stage} ${microBatch}`, `${formatTurn(turn)} reads another's`);
      assert.ok(found?.parts.has(part.direction), `${formatTurn(turn)} reads too early`);
    }
    const slot = slotOf(stage, microBatch);
    const of = `${stage} ${microBatch}`;
    if (direction === "F") slots.set(slot, { of, parts: new Set() });
    assert.equal(slots.get(slot)?.of, of);
    slots.get(slot)?.parts.add(direction);
    for (const to of turn.tells) count(`${rank}.${to}`, 1);
    at[rank] = (at[rank] as number) + 1;
  }
  assert.deepEqual(
    at,
    turns.map(({ length }) => length),
  );
  assert.ok(
    [...messages.values()].every((left) => left === 0),
    "no message is left",
  );
}

test("whatever the order and the speeds, each turn reads what it needs and nothing else", () => {
  fc.assert(
    fc.property(anyTimetable, fc.infiniteStream(fc.nat()), (timetable, speeds) => {
      const needs = chain(timetable);
      const planned = planTimetable(timetable, needs);
      runPlan(planned, needs, (count) => (speeds.next().value as number) % count);
      const ends = endsOf(planned, needs, secondsIn(timetable));
      assert.deepEqual(
        ends.map(({ length }) => length),
        timetable.map(({ length }) => length),
      );
    }),
    { numRuns: 300 },
  );
});
