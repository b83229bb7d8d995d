/** Makes trainers: with initial values, or with the state of a run that others are in. */
import { instantiate } from "../execute/index.ts";
import { checkOptions } from "../options.ts";
import { planOf } from "./planned.ts";
import type { Prepared } from "./prepare.ts";
import { moveTo, type Standing } from "./regroup.ts";
import { initializeTrainer } from "./state.ts";
import { Trainer } from "./step.ts";
import { TRAINER_OPTIONS, type TrainerOptions } from "./step-types.ts";

/**
 * Allocates memory, compiles graphs, and computes the initial values.
 * @throws INVALID_OPTION, OUT_OF_MEMORY, ENGINE_FAILED, NO_GRADIENT
 */
export async function createTrainer(
  options: TrainerOptions,
  prepared?: Prepared,
): Promise<Trainer> {
  checkOptions("createTrainer", options, TRAINER_OPTIONS);
  const { engine, model, ranks, seed = 0, offloadFolder } = options;
  const planned = planOf(options, prepared?.step);
  const instance = await instantiate(engine, planned.plan, ranks?.group, offloadFolder);
  try {
    await initializeTrainer(engine, instance, planned.plan, model, seed);
    // Ranks read each other's parts in the first step.
    const { held, divided } = planned.plan;
    if (held.length > 0 || divided !== undefined) await ranks?.group.barrier();
  } catch (error) {
    instance.close();
    throw error;
  }
  return new Trainer(options, planned, instance);
}

/**
 * Makes a trainer that takes the state of a run from the other ranks of its group, which call
 * `Trainer.regroup` together. Returns undefined when none of them has one: the run begins.
 * @throws INVALID_OPTION, OUT_OF_MEMORY, ENGINE_FAILED, and what the group throws
 */
export async function joinTrainer(
  options: TrainerOptions,
  prepared?: Prepared,
): Promise<Trainer | undefined> {
  checkOptions("joinTrainer", options, TRAINER_OPTIONS);
  const standings: Standing[] = [];
  try {
    const moved = await moveTo(options, standings, prepared?.step);
    if (moved === undefined) return undefined;
    const trainer = new Trainer(options, moved.planned, moved.instance);
    trainer.resumeAt(moved.steps);
    return trainer;
  } finally {
    for (const { instance } of standings) instance.close();
  }
}
