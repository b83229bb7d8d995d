/** What stages sum: all that they make, once, and nothing that another stage of their rank makes. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { planLayout } from "./layout.ts";
import { blocksOf, entrySpan, tilesOf } from "./spans.ts";
import { cutsByOwner, placesOfTiles, spansOfStage } from "./stage-tiles.ts";

const TILE = 128;
const STAGES = 5;

const anyCase = fc.record({
  /** The elements of each tensor, and the stage that makes its gradient. */
  tensors: fc.array(
    fc.record({
      elements: fc.integer({ min: 1, max: 300 }),
      stage: fc.nat({ max: STAGES - 1 }),
    }),
    { minLength: 1, maxLength: 12 },
  ),
  /** By stage. */
  ranks: fc.array(fc.nat({ max: 2 }), { minLength: STAGES, maxLength: STAGES }),
});

test("of all that is made, each element is summed once, by the stage that makes it", () => {
  fc.assert(
    fc.property(anyCase, ({ tensors, ranks }) => {
      const layout = planLayout(
        tensors.map(({ elements }, at) => ({
          name: `${at}`,
          type: { dtype: "float32", shape: [elements] },
          group: "all",
        })),
        TILE,
      );
      const [group] = layout.groups;
      assert.ok(group !== undefined);
      const makers = new Map(tensors.map(({ stage }, at) => [`${at}`, stage]));
      /** By rank and element: how many stages sum it, as additions are cut, and the last of them. */
      const times = ranks.map(() => new Uint8Array(group.length));
      const last = ranks.map(() => new Uint8Array(group.length));
      for (const [stage, rank] of ranks.entries()) {
        const isBeside = (other: number) => other !== stage && ranks[other] === rank;
        const spans = spansOfStage(group, makers, { stage, isBeside });
        for (const { start, end } of spans.flatMap(blocksOf).flatMap(tilesOf)) {
          assert.ok(start < end && end <= group.length);
          for (const own of times[rank]?.subarray(start, end).keys() ?? []) {
            (times[rank] as Uint8Array)[start + own] = (times[rank]?.[start + own] ?? 0) + 1;
          }
          last[rank]?.fill(stage, start, end);
        }
      }
      for (const entry of group.entries) {
        const stage = makers.get(entry.name) as number;
        const { start, end } = entrySpan(group, entry);
        const rank = ranks[stage] as number;
        assert.ok(times[rank]?.subarray(start, end).every((own) => own === 1));
        assert.ok(last[rank]?.subarray(start, end).every((own) => own === stage));
      }
    }),
    { numRuns: 100 },
  );
});

test("each tile lies with one rank, that whose stages make most of it", () => {
  const type = { dtype: "float32", shape: [64] } as const;
  const names = ["0", "1", "2", "3", "4", "5"];
  const layout = planLayout(
    names.map((name) => ({ name, type, group: "all" })),
    TILE,
  );
  const [group] = layout.groups;
  assert.ok(group !== undefined);
  // Both make as much of tile 0, which goes to the first; tile 1 is made by rank 1, tile 2 by rank 0.
  const makers = new Map([1, 0, 1, 1, 0, 0].map((rank, at) => [`${at}`, rank]));
  const cuts = cutsByOwner(group, placesOfTiles(group, makers), 2);
  assert.deepEqual(
    cuts.map((cut) => cut.map(({ start, end }) => [start / TILE, end / TILE])),
    [
      [
        [0, 1],
        [1, 2],
      ],
      [
        [2, 3],
        [3, 3],
      ],
    ],
  );
});
