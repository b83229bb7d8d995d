/** What a trainer holds, by name: for first values, checkpoints and export. */
import type { Engine, EngineTensor } from "../engine/index.ts";
import type { Model } from "../nn/index.ts";
import { type Instance, initialize, type StepProgram, type TensorRef } from "../program/index.ts";

/** Views by name. Slots are named `PARAMETER.SLOT`: `blocks.0.weight.exp_avg`. */
export interface TrainerTensors {
  readonly parameters: Readonly<Record<string, EngineTensor>>;
  readonly slots: Readonly<Record<string, EngineTensor>>;
  /** Running statistics. */
  readonly states: Readonly<Record<string, EngineTensor>>;
}

export function namedTensors(instance: Instance, plan: StepProgram, from: 0 | 1): TrainerTensors {
  const views = (refs: Iterable<readonly [string, TensorRef]>) =>
    Object.fromEntries([...refs].map(([name, ref]) => [name, instance.tensor(ref)]));
  return {
    parameters: views(plan.parameters),
    slots: views(plan.slots),
    states: views(plan.sides[from].states),
  };
}

export async function initializeTrainer(
  engine: Engine,
  instance: Instance,
  plan: StepProgram,
  model: Model,
  seed: number,
): Promise<void> {
  const { parameters, states } = namedTensors(instance, plan, 0);
  const places = { ...parameters, ...states };
  const items = [...model.parameters, ...model.states].map(({ name, type, initializer }) => ({
    name,
    type,
    initializer,
    into: places[name] as EngineTensor,
  }));
  await initialize(engine, items, seed);
}
