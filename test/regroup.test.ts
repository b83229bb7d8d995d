/**
 * Memory outlives groups: trainers leave one group and continue with other ranks, with the same
 * bits before and after.
 */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { createOrtEngine, createReferenceEngine, type Device } from "../src/engine/index.ts";
import type { ModelDefinition } from "../src/nn/index.ts";
import { adamw, muon, type Optimizer } from "../src/optimizer/index.ts";
import {
  createTrainer,
  joinTrainer,
  type Trainer,
  type TrainerOptions,
} from "../src/train/index.ts";
import { onDisk } from "./support/folder.ts";
import { type SimulatedRanks, simulatedRanks } from "./support/ranks.ts";
import { CONVOLUTION, GPT, stepOf } from "./support/small-models.ts";
import { bitsOf } from "./support/steps.ts";

const cpu = createOrtEngine({ threads: 1 });
const opaque = createReferenceEngine();
after(() => Promise.all([cpu.close(), opaque.close()]));

const SAMPLES = 8;
const MICRO_BATCHES = 8;

/** How a number of ranks reach each other. */
interface Crew {
  readonly ranks: number;
  /** Whether ranks of a node read each other's memory; otherwise they use messages alone. */
  readonly inPlace: boolean;
  readonly nodes?: readonly (readonly number[])[];
}

async function steps(trainers: readonly Trainer[], count: number): Promise<void> {
  await Promise.all(
    trainers.map(async (trainer) => {
      for (let index = 0; index < count; index++) await stepOf(trainer, SAMPLES);
    }),
  );
}

function meet(engine: Device, { ranks, inPlace, nodes }: Crew): SimulatedRanks {
  return simulatedRanks(engine, ranks, inPlace, nodes);
}

function optionsOf(
  engine: Device,
  [model, optimizer]: readonly [ModelDefinition, Optimizer],
  group?: SimulatedRanks["groups"][number],
  options: Pick<TrainerOptions, "zero" | "offload"> = {},
): TrainerOptions {
  return {
    ...options,
    offloadFolder: onDisk(),
    engine,
    model: model.build({ batch: SAMPLES / MICRO_BATCHES, mode: "train" }),
    optimizer,
    clip: 1,
    microBatches: MICRO_BATCHES,
    bucketBytes: 2000,
    ranks: group && { group, adapt: false },
  };
}

/**
 * Trains with each crew in turn. Ranks that are not in the next crew end, and newcomers join.
 * @param leave called before each change of crew
 */
async function trainInTurn(
  engine: Device,
  what: readonly [ModelDefinition, Optimizer],
  crews: readonly Crew[],
  leave: (met: SimulatedRanks) => void = () => undefined,
  options: Pick<TrainerOptions, "zero" | "offload"> = {},
): Promise<Record<string, string>> {
  let met = meet(engine, crews[0] as Crew);
  let trainers = await Promise.all(
    met.groups.map((group) => createTrainer(optionsOf(engine, what, group, options))),
  );
  await steps(trainers, 2);
  for (const crew of crews.slice(1)) {
    leave(met);
    const next = meet(engine, crew);
    const staying = trainers.slice(0, crew.ranks);
    const before = await bitsOf(trainers[0] as Trainer);
    trainers = await Promise.all(
      next.groups.map(async (group, rank) => {
        const trainer = staying[rank];
        if (trainer === undefined) {
          return (await joinTrainer(optionsOf(engine, what, group, options))) as Trainer;
        }
        await trainer.regroup({ group, adapt: false });
        return trainer;
      }),
    );
    await met.close();
    met = next;
    for (const trainer of trainers) assert.deepEqual(await bitsOf(trainer), before);
    await steps(trainers, 2);
  }
  const found = await Promise.all(trainers.map(bitsOf));
  for (const own of found) assert.deepEqual(own, found[0], "all ranks are alike");
  // One rank trains alone, with what the others held.
  const [last] = trainers as [Trainer];
  await last.regroup();
  await met.close();
  await steps([last], 1);
  const result = await bitsOf(last);
  for (const trainer of trainers) trainer.close();
  return result;
}

async function trainAlone(
  engine: Device,
  what: readonly [ModelDefinition, Optimizer],
  count: number,
): Promise<Record<string, string>> {
  const trainer = await createTrainer(optionsOf(engine, what));
  await steps([trainer], count);
  const result = await bitsOf(trainer);
  trainer.close();
  return result;
}

const CREWS: Readonly<Record<string, readonly Crew[]>> = {
  "4 ranks in place, then 3": [
    { ranks: 4, inPlace: true },
    { ranks: 3, inPlace: true },
  ],
  "2 ranks in place, then 4, then 3": [
    { ranks: 2, inPlace: true },
    { ranks: 4, inPlace: true },
    { ranks: 3, inPlace: true },
  ],
  "2 ranks by messages, then 3": [
    { ranks: 2, inPlace: false },
    { ranks: 3, inPlace: false },
  ],
  "4 ranks by messages, then 3 in place, then 2 by messages": [
    { ranks: 4, inPlace: false },
    { ranks: 3, inPlace: true },
    { ranks: 2, inPlace: false },
  ],
  "4 ranks on 2 nodes, then 3 on one": [
    {
      ranks: 4,
      inPlace: true,
      nodes: [
        [0, 1],
        [2, 3],
      ],
    },
    { ranks: 3, inPlace: true },
  ],
};

for (const [device, engine, work] of [
  ["the CPU", cpu, { gpt: [GPT, adamw({ learningRate: 1e-2 })] }],
  ["the CPU", cpu, { "gpt with muon": [GPT, muon({ learningRate: 1e-2 })] }],
  ["the CPU", cpu, { resnet: [CONVOLUTION, adamw({ learningRate: 1e-2 })] }],
  ["opaque memory", opaque, { gpt: [GPT, adamw({ learningRate: 1e-2 })] }],
] as const) {
  for (const [name, what] of Object.entries(work)) {
    describe(`${name} on ${device}`, () => {
      for (const [way, crews] of Object.entries(CREWS)) {
        test(`${way}: the bits are those of one process`, async () => {
          const expected = await trainAlone(engine, what, 2 * crews.length + 1);
          assert.deepEqual(await trainInTurn(engine, what, crews), expected);
        });
      }
    });
  }
}

for (const zero of [undefined, 3] as const) {
  test(`what lies on disk goes from group to group, zero ${zero ?? "none"}`, async () => {
    const what = [GPT, adamw({ learningRate: 1e-2 })] as const;
    const crews = CREWS["4 ranks in place, then 3"] ?? [];
    const found = await trainInTurn(cpu, what, crews, undefined, { zero, offload: "disk" });
    assert.deepEqual(found, await trainAlone(cpu, what, 5));
  });
}

test("a trainer leaves a failed group like any other", async () => {
  const what = [GPT, adamw({ learningRate: 1e-2 })] as const;
  const crews = CREWS["4 ranks in place, then 3"] ?? [];
  const fail = ({ groups }: SimulatedRanks) => groups[3]?.transport.abort(new Error("gone"));
  assert.deepEqual(await trainInTurn(cpu, what, crews, fail), await trainAlone(cpu, what, 5));
});

test("a trainer whose regrouping failed continues with other ranks", async () => {
  const what = [GPT, adamw({ learningRate: 1e-2 })] as const;
  const met = meet(cpu, { ranks: 2, inPlace: true });
  const trainers = await Promise.all(
    met.groups.map((group) => createTrainer(optionsOf(cpu, what, group))),
  );
  await steps(trainers, 2);

  // The second rank never comes, and the group fails while the first waits for it.
  const failing = meet(cpu, { ranks: 2, inPlace: false });
  const [first, second] = trainers as [Trainer, Trainer];
  const [group, other] = failing.groups;
  const regrouping = first.regroup({ group: group as NonNullable<typeof group>, adapt: false });
  other?.transport.abort(new Error("gone"));
  await assert.rejects(regrouping, { code: "ABORTED" });
  await failing.close();

  const again = meet(cpu, { ranks: 2, inPlace: true });
  await Promise.all(
    again.groups.map((member, rank) =>
      (rank === 0 ? first : second).regroup({ group: member, adapt: false }),
    ),
  );
  await met.close();
  await steps(trainers, 2);
  assert.deepEqual(await bitsOf(first), await trainAlone(cpu, what, 4));
  for (const trainer of trainers) trainer.close();
  await again.close();
});
