/** The parts of a divided model, when a rank is lost and the others go on. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { mortal } from "../../test/support/mortal.ts";
import { simulatedRanks } from "../../test/support/ranks.ts";
import { CLASSES } from "../../test/support/small-models.ts";
import { fillingAt } from "../../test/support/steps.ts";
import { Group } from "../collectives/index.ts";
import { createOrtEngine } from "../engine/index.ts";
import { gpt } from "../nn/index.ts";
import { adamw } from "../optimizer/index.ts";
import { createTrainer } from "./create.ts";
import { keepingPlaces } from "./places.ts";
import type { Trainer } from "./step.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

const SAMPLES = 4;
const model = gpt({ layers: 1, width: 8, heads: 2, context: 4, vocabulary: CLASSES });
const options = {
  engine,
  model: model.build({ batch: 1, mode: "train" }),
  optimizer: adamw({ learningRate: 1e-2 }),
  clip: 1,
  microBatches: SAMPLES,
};

async function lossOf(trainer: Trainer): Promise<number> {
  const at = trainer.steps;
  const positions = { start: at * SAMPLES, end: (at + 1) * SAMPLES };
  const fill = fillingAt(trainer.ownPositions(positions), CLASSES);
  return (await trainer.step({ positions, fill })).loss;
}

async function lossesOf(trainer: Trainer, count: number): Promise<number[]> {
  const losses: number[] = [];
  for (let step = 0; step < count; step++) losses.push(await lossOf(trainer));
  return losses;
}

test("a rank is lost after its update: the others have the step that they wait for the end of, and whole groups go on", async () => {
  const alone = await createTrainer(options);
  const wanted = await lossesOf(alone, 4);
  alone.close();
  const met = simulatedRanks(engine, 4, true);
  const mortals = met.groups.map(() => mortal(engine));
  const trainers = await Promise.all(
    met.groups.map(({ transport: given }, rank) => {
      const { device, transport } = mortals[rank] as (typeof mortals)[number];
      const group = new Group({ engine: device, transport: transport(given) });
      const ranks = { group, adapt: false };
      return createTrainer({ ...options, engine: device, parallel: { data: 2, tensor: 2 }, ranks });
    }),
  );
  const last = mortals[3] as (typeof mortals)[number];
  const others = mortals.slice(0, 3);
  await Promise.all(trainers.map(lossOf));
  for (const each of mortals) each.dieAt(Number.POSITIVE_INFINITY);
  await Promise.all(trainers.map(lossOf));
  // Steps differ in what ranks tell each other, and not in what they run.
  const runsOf = ({ deeds }: (typeof mortals)[number]) =>
    deeds.filter((deed) => deed === "run").length;
  const runs = new Map(mortals.map((each) => [each, runsOf(each)]));
  for (const each of others) each.dieAt(Number.POSITIVE_INFINITY);
  last.dieAt((runs.get(last) ?? 0) - 1, "run");
  /** The others have updated, too, and wait for the end of the commit. */
  const areWaiting = () =>
    others.every(
      (each) =>
        runsOf(each) === runs.get(each) && each.deeds.at(-1) === "meeting" && !each.isRunning,
    );
  const ended = await Promise.allSettled(
    trainers.map(async (trainer, rank) => {
      try {
        await lossOf(trainer);
      } catch (error) {
        if (rank === 3) {
          const deadline = performance.now() + 10_000;
          while (!areWaiting() && performance.now() < deadline) await setImmediate();
          met.network.kill(3);
        }
        throw error;
      }
    }),
  );
  assert.ok(ended.every(({ status }) => status === "rejected"));
  assert.deepEqual(
    trainers.slice(0, 3).map(({ steps }) => steps),
    [3, 3, 3],
  );
  const rest = simulatedRanks(engine, 2, true);
  const found = await Promise.all(
    rest.groups.map(async (group, rank) => {
      const trainer = trainers[rank] as Trainer;
      const step = await trainer.regroup({ group, adapt: false });
      return [step?.loss, await lossOf(trainer)];
    }),
  );
  for (const losses of found) {
    for (const [index, loss] of losses.entries()) {
      const distance = Math.abs((loss ?? Number.NaN) - (wanted[2 + index] as number));
      assert.ok(distance < 1e-4, `step ${3 + index}: ${loss}, not ${wanted[2 + index]}`);
    }
  }
  for (const trainer of trainers) trainer.close();
  await Promise.all([met.close(), rest.close()]);
});

test("a rank that gets another place than before is taken for a newcomer", () => {
  const divided = {
    place: 0,
    peer: 0,
    ranks: [
      [0, 2],
      [1, 3],
    ],
    tensors: new Map([["w", {}]]),
  };
  const came = [0, 3, 1, -1].map((place) => ({ place, steps: place < 0 ? -1 : 5 }));
  const steps = (plan: unknown) =>
    keepingPlaces(plan as Trainer["plan"], came).map((rank) => rank.steps);
  assert.deepEqual(steps({ divided }), [5, 5, -1, -1]);
  assert.deepEqual(steps({ divided: { ...divided, tensors: new Map() } }), [5, 5, 5, -1]);
});
