/** Ranks of different speeds: their shares follow, and no bit of the weights changes. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createOrtEngine } from "../src/engine/index.ts";
import { gpt } from "../src/nn/index.ts";
import { muon } from "../src/optimizer/index.ts";
import { elementCount, tensorFrom } from "../src/tensor/index.ts";
import { createTrainer, type FillBatch, type Trainer } from "../src/train/index.ts";
import { simulatedRanks } from "./support/ranks.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

const SAMPLES = 8;
const VOCABULARY = 10;
const definition = gpt({ layers: 1, width: 16, heads: 2, context: 8, vocabulary: VOCABULARY });
const model = definition.build({ batch: 1, mode: "train" });

/**
 * Returns a clock that advances at each reading, by a time that depends on the step and on how much
 * the rank computes.
 */
function clock(trainer: () => Trainer | undefined, pace: (step: number) => number): () => number {
  let time = 0;
  return () => {
    const own = trainer();
    if (own !== undefined) time += own.plan.microBatches.length * pace(own.steps);
    return time;
  };
}

function filling({ start, end }: { readonly start: number; readonly end: number }): FillBatch {
  return (into) => {
    for (const [field, tensor] of Object.values(into).entries()) {
      const width = elementCount(tensor.shape) / (end - start);
      const ids = Array.from(
        { length: width * (end - start) },
        (_, i) => ((start * width + i) * 31 + 7 * field) % VOCABULARY,
      );
      tensor.bytes.set(tensorFrom(tensor.dtype, tensor.shape, ids).bytes);
    }
  };
}

interface Outcome {
  /** The number of micro-batches of each rank, by step. */
  readonly counts: readonly number[];
  readonly reasons: readonly string[];
  readonly weights: Readonly<Record<string, string>>;
}

async function train(
  ranks: number,
  inPlace: boolean,
  steps: number,
  pace: (rank: number, step: number) => number,
): Promise<Outcome[]> {
  const simulated = simulatedRanks(engine, ranks, inPlace);
  const trainers: Trainer[] = [];
  const outcomes = await Promise.all(
    simulated.groups.map(async (group, rank): Promise<Outcome> => {
      const now = clock(
        () => trainers[rank],
        (step) => pace(rank, step),
      );
      const trainer = await createTrainer({
        engine,
        model,
        optimizer: muon({ learningRate: 1e-2 }),
        microBatches: SAMPLES,
        ranks: { group, now },
      });
      trainers[rank] = trainer;
      const counts: number[] = [];
      const reasons: string[] = [];
      for (let step = 0; step < steps; step++) {
        const positions = { start: step * SAMPLES, end: (step + 1) * SAMPLES };
        counts.push(trainer.plan.microBatches.length);
        const fill = filling(trainer.ownPositions(positions)[0] ?? positions);
        const { shared } = await trainer.step({ positions, fill });
        if (shared !== undefined) reasons.push(shared);
      }
      const { parameters, slots } = await trainer.read();
      const weights = Object.entries({ ...parameters, ...slots }).map(([name, { bytes }]) => [
        name,
        Buffer.from(bytes).toString("base64"),
      ]);
      return { counts, reasons, weights: Object.fromEntries(weights) as Outcome["weights"] };
    }),
  );
  for (const trainer of trainers) trainer.close();
  await simulated.close();
  return outcomes;
}

for (const inPlace of [true, false]) {
  const how = inPlace ? "in place" : "by messages";
  test(`a slow rank gets fewer micro-batches and gets them back when it recovers, with the same bits (${how})`, async () => {
    const steps = 20;
    const [alone] = await train(1, inPlace, steps, () => 1);
    for (const ranks of [2, 3]) {
      // The last rank takes three times as long in the first nine steps.
      const outcomes = await train(ranks, inPlace, steps, (rank, step) =>
        rank === ranks - 1 && step < 9 ? 3 : 1,
      );
      for (const [rank, { weights, reasons }] of outcomes.entries()) {
        assert.deepEqual(weights, alone?.weights, `rank ${rank} of ${ranks}`);
        assert.deepEqual(reasons, outcomes[0]?.reasons);
        assert.equal(reasons.length, 2);
      }
      const slow = outcomes.at(-1)?.counts ?? [];
      assert.deepEqual([slow[0], slow[8], slow[19]], ranks === 2 ? [4, 2, 4] : [2, 1, 2]);
    }
  });
}

test("ranks of the same speed keep their shares", async () => {
  for (const { reasons } of await train(2, true, 8, (rank) => (rank === 0 ? 1 : 1.08))) {
    assert.deepEqual(reasons, []);
  }
});
