import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  type Combination,
  evenRanges,
  planShares,
  type Range,
  type ShareOptions,
} from "./shares.ts";
import { planWaves } from "./waves.ts";

/** Runs the plans of all ranks on brackets instead of numbers. */
function expression(ranges: readonly Range[], lanes: number, options: ShareOptions = {}): string {
  const shares = planShares(ranges, options);
  const held = ranges.map((_, rank) => {
    const own = shares.contributions.filter((from) => from.rank === rank);
    const { waves, accumulators } = planWaves(own, { perWave: lanes, isInPlace: true });
    const buffer = new Array<string>(accumulators).fill("");
    const sumOf = (part: Combination): string =>
      typeof part === "number" ? (buffer[part] as string) : `(${sumOf(part[0])} ${sumOf(part[1])})`;
    for (const { first, leaves, sums } of waves) {
      for (const [index, leaf] of leaves.entries()) buffer[leaf] = String(first + index);
      for (const { accumulator, combination } of sums) buffer[accumulator] = sumOf(combination);
    }
    return buffer;
  });
  const resolve = (part: Combination): string => {
    if (typeof part !== "number") return `(${resolve(part[0])} ${resolve(part[1])})`;
    const from = shares.contributions[part];
    return held[from?.rank ?? -1]?.[from?.slot ?? -1] ?? "?";
  };
  return resolve(shares.combination);
}

/** One rank alone. */
function alone(count: number): string {
  return expression([{ first: 0, count }], 1);
}

test("ranges are even, and all have something", () => {
  assert.deepEqual(evenRanges(8, 3), [
    { first: 0, count: 3 },
    { first: 3, count: 3 },
    { first: 6, count: 2 },
  ]);
  assert.equal(alone(6), "(((0 1) (2 3)) (4 5))");
});

test("any ranges on any lanes make the same sum", () => {
  const cuts = fc.integer({ min: 1, max: 24 }).chain((count) =>
    fc.record({
      count: fc.constant(count),
      cuts: fc.uniqueArray(fc.integer({ min: 1, max: Math.max(1, count - 1) }), { maxLength: 7 }),
      lanes: fc.integer({ min: 1, max: 4 }),
    }),
  );
  fc.assert(
    fc.property(cuts, ({ count, cuts: given, lanes }) => {
      const edges = [0, ...given.filter((cut) => cut < count).sort((a, b) => a - b), count];
      const ranges = edges.slice(1).map((end, index) => ({
        first: edges[index] as number,
        count: end - (edges[index] as number),
      }));
      assert.equal(expression(ranges, lanes), alone(count));
      assert.equal(expression(ranges, lanes, { leaveLast: true }), alone(count));
    }),
    { numRuns: 300 },
  );
});
