/** What a trainer holds, by name: for first values, checkpoints and export. */
import type { Device, DeviceTensor } from "../engine/index.ts";
import { assert } from "../errors.ts";
import type { Model } from "../nn/index.ts";
import { type Instance, initialize, type StepProgram, type TensorRef } from "../program/index.ts";
import type { Tensor } from "../tensor/index.ts";

/** By name: places on the device, or what they hold. Slots are named `PARAMETER.SLOT`: `blocks.0.weight.exp_avg`. */
export interface TrainerTensors<T> {
  readonly parameters: Readonly<Record<string, T>>;
  readonly slots: Readonly<Record<string, T>>;
  /** Running statistics. */
  readonly states: Readonly<Record<string, T>>;
}

/** What a trainer's tensors hold. */
export type TrainerState = TrainerTensors<Tensor>;

export function namedTensors(
  instance: Instance,
  plan: StepProgram,
  from: 0 | 1,
): TrainerTensors<DeviceTensor> {
  const views = (refs: Iterable<readonly [string, TensorRef]>) =>
    Object.fromEntries([...refs].map(([name, ref]) => [name, instance.tensor(ref)]));
  return {
    parameters: views(plan.parameters),
    slots: views(plan.slots),
    states: views(plan.sides[from].states),
  };
}

/** What all tensors hold, as `Device.download` gives it. */
export async function downloadState(
  device: Device,
  { parameters, slots, states }: TrainerTensors<DeviceTensor>,
): Promise<TrainerState> {
  const all = async (places: Readonly<Record<string, DeviceTensor>>) => {
    const names = Object.keys(places);
    const tensors = await Promise.all(Object.values(places).map((place) => device.download(place)));
    return Object.fromEntries(tensors.map((tensor, index) => [names[index] as string, tensor]));
  };
  return {
    parameters: await all(parameters),
    slots: await all(slots),
    states: await all(states),
  };
}

/** Writes the tensors that are given; each must be one of the trainer's. */
export function uploadState(
  device: Device,
  places: TrainerTensors<DeviceTensor>,
  given: Partial<TrainerState>,
): void {
  for (const kind of ["parameters", "slots", "states"] as const) {
    for (const [name, { bytes }] of Object.entries(given[kind] ?? {})) {
      const place = places[kind][name];
      assert(place !== undefined, `the trainer has "${name}" among its ${kind}`);
      device.upload(place, bytes);
    }
  }
}

export async function initializeTrainer(
  engine: Device,
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
    into: places[name] as DeviceTensor,
  }));
  await initialize(engine, items, seed);
}
