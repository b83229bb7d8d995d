/** What a trainer holds, by name: for first values, checkpoints and export. */
import type { Device, DeviceTensor } from "../engine/index.ts";
import { assert } from "../errors.ts";
import type { Model } from "../nn/index.ts";
import type { Optimizer } from "../optimizer/index.ts";
import {
  type Instance,
  initialize,
  type StepProgram,
  scalarsOf,
  type TensorRef,
} from "../program/index.ts";
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

/** Brings to this rank's memory what neighbours hold of the optimizer's slots. */
export function collectHeld(instance: Instance, { held }: StepProgram): void {
  for (const { buffer, rank, byteOffset, byteLength } of held) {
    const theirs = instance.host(buffer, rank).bytes.subarray(byteOffset, byteOffset + byteLength);
    instance.host(buffer).bytes.set(theirs, byteOffset);
  }
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

/** What the update of a step is given: its number, counted from 1, the factors of its gradients and of its learning rate. */
export function writeScalars(
  instance: Instance,
  { scalars }: StepProgram,
  optimizer: Optimizer,
  of: { readonly step: number; readonly gradientScale: number; readonly factor: number },
): void {
  for (const [place, value] of scalarsOf(optimizer, scalars, of, of.factor)) {
    instance.hostTensor(place).bytes.set(value.bytes);
  }
}
