/** One process of several that train a model together. Prints what it has at the end as JSON. */
import { Group } from "../src/collectives/index.ts";
import { joinSharedMemory } from "../src/transport/index.ts";
import { engine, trainIn } from "../test/support/shared-runs.ts";
import { bitsOf } from "../test/support/steps.ts";
import { MODELS } from "./same-models.ts";
import type { RankRequest, RankResult } from "./same-processes.ts";
import { optimizer } from "./same-runs.ts";

console.log(JSON.stringify(await run(JSON.parse(process.argv[2] ?? "{}") as RankRequest)));

async function run({ model: wanted, way, steps, group: own }: RankRequest): Promise<RankResult> {
  const model = MODELS.find(({ name }) => name === wanted);
  if (model === undefined) throw new Error(`There is no model "${wanted}".`);
  const { inProcesses: _, ...setting } = way;
  const group = new Group({ engine, transport: await joinSharedMemory(own) });
  const { classes } = model;
  let bits: RankResult["bits"] = {};
  const { losses } = await trainIn(group, model.definition, setting, {
    steps,
    classes,
    optimizer,
    look: async (trainer, step, rank) => {
      if (rank === 0 && step === steps - 1) bits = await bitsOf(trainer);
    },
  });
  await group.close();
  await engine.close();
  return { losses, bits };
}
