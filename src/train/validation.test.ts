import assert from "node:assert/strict";
import { test } from "node:test";
import type { SampleSet } from "../data/index.ts";
import type { FillBatch, Trainer } from "./step.ts";
import { Validation } from "./validation.ts";

/** The samples of each batch that a validation looks at, twice. */
async function looks(length: number, batch: number, limit: number): Promise<number[][]> {
  const seen: number[][] = [];
  const samples: SampleSet = {
    length,
    read: async (indices) => {
      seen.push([...indices]);
    },
  };
  const trainer = {
    evaluate: async (fill: FillBatch) => {
      await fill({});
      return seen.length;
    },
  } as unknown as Trainer;
  const validation = new Validation(samples, trainer, { batch, limit });
  const count = await validation.loss().then(() => seen.length);
  const first = seen.slice();
  const loss = await validation.loss();
  assert.deepEqual(seen.slice(count), first, "the same samples every time");
  assert.equal(loss, count + (count + 1) / 2, "the mean over batches");
  return first;
}

test("the same samples every time, in whole batches, spread over all that is held out", async () => {
  assert.deepEqual(await looks(8, 2, 100), [
    [0, 1],
    [2, 3],
    [4, 5],
    [6, 7],
  ]);
  assert.deepEqual(await looks(100, 2, 4), [
    [0, 25],
    [50, 75],
  ]);
  const all = (await looks(1001, 4, 64)).flat();
  assert.equal(new Set(all).size, 64);
  assert.ok(Math.max(...all) < 1001 && Math.max(...all) > 950);
});

test("less than one batch is filled by taking samples again", async () => {
  assert.deepEqual(await looks(3, 4, 256), [[0, 0, 1, 2]]);
  assert.deepEqual(await looks(1, 2, 256), [[0, 0]]);
});
