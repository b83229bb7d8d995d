/** What a trainer holds, by name: for first values, checkpoints and export. */
import type { Device, DeviceTensor } from "../engine/index.ts";
import { assert } from "../errors.ts";
import { type Instance, initialize } from "../execute/index.ts";
import type { Model } from "../nn/index.ts";
import { type Rules } from "../optimizer/index.ts";
import { type Held, type StepProgram, scalarsOf, type TensorRef } from "../program/index.ts";
import { byteLength, type Tensor } from "../tensor/index.ts";

/**
 * By name: places on the device, or what they hold. Slots are named `PARAMETER.SLOT`:
 * `blocks.0.weight.exp_avg`.
 */
export interface TrainerTensors<T> {
  readonly parameters: Readonly<Record<string, T>>;
  readonly slots: Readonly<Record<string, T>>;
  /** Running statistics. */
  readonly states: Readonly<Record<string, T>>;
}

/** What a trainer's tensors hold. */
export type TrainerState = TrainerTensors<Tensor>;

/** What is read at once of what another rank holds. */
const PIECE_BYTES = 2 ** 24;

/**
 * Gives bytes of a part of a buffer that another rank holds, from an offset in that part. They are let go of when they have been
 * read, so that reading all of it takes no more memory than one piece.
 */
export interface ReadHeld {
  read(part: Held, byteOffset: number, byteLength: number): Uint8Array;
  letGo(part: Held, byteOffset: number, byteLength: number): void;
}

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

/**
 * What all tensors hold: as `Device.download` gives it, or put together out of what the ranks hold
 * that have parts of it, tensor by tensor as it is asked for. Those ranks stand still meanwhile.
 */
export async function readState(
  instance: Instance,
  plan: StepProgram,
  from: 0 | 1,
  others: ReadHeld,
): Promise<TrainerState> {
  const all = async (refs: ReadonlyMap<string, TensorRef>) => {
    const found = [...refs].map(async ([name, ref]): Promise<[string, Tensor]> => {
      const tensor = isInParts(plan, ref)
        ? inParts(instance, plan, ref, others)
        : await instance.device.download(instance.tensor(ref));
      return [name, tensor];
    });
    return Object.fromEntries(await Promise.all(found));
  };
  return {
    parameters: await all(plan.parameters),
    slots: await all(plan.slots),
    states: await all(plan.sides[from].states),
  };
}

/** Whether other ranks hold parts of a tensor. */
function isInParts({ held }: StepProgram, { buffer }: TensorRef): boolean {
  return held.some((part) => part.buffer === buffer);
}

function inParts(
  instance: Instance,
  { held }: StepProgram,
  ref: TensorRef,
  others: ReadHeld,
): Tensor {
  const [start, end] = [ref.byteOffset, ref.byteOffset + byteLength(ref.type)];
  const parts = held
    .filter(({ buffer }) => buffer === ref.buffer)
    .toSorted((a, b) => a.byteOffset - b.byteOffset);
  const view = (from: number, to: number) => instance.host(ref.buffer).view(from, to - from);
  // This rank's memory is not even read where others hold what lies there: reading takes pages of it.
  const pieces = function* () {
    let at = start;
    for (const part of parts) {
      const from = Math.max(start, part.byteOffset);
      const to = Math.min(end, part.byteOffset + part.byteLength);
      if (from >= to) continue;
      if (at < from) yield view(at, from);
      for (at = from; at < to; at += PIECE_BYTES) {
        const place = [part, at - part.byteOffset, Math.min(PIECE_BYTES, to - at)] as const;
        yield others.read(...place);
        others.letGo(...place);
      }
      at = to;
    }
    if (at < end) yield view(at, end);
  };
  return {
    ...ref.type,
    pieces,
    get bytes() {
      const bytes = new Uint8Array(end - start);
      let at = 0;
      for (const piece of pieces()) {
        bytes.set(piece, at);
        at += piece.byteLength;
      }
      return bytes;
    },
  };
}

/** Writes a tensor's bytes, but for the parts that other ranks hold: theirs are not touched, and take no memory here. */
export function writeOwn(
  instance: Instance,
  { held }: StepProgram,
  { buffer, byteOffset, type }: TensorRef,
  bytes: Uint8Array,
): void {
  const end = byteOffset + byteLength(type);
  const others = held
    .filter((part) => part.buffer === buffer)
    .toSorted((a, b) => a.byteOffset - b.byteOffset);
  let at = byteOffset;
  const write = (to: number) => {
    if (to <= at) return;
    const own = { buffer, byteOffset: at, type: { dtype: "uint8", shape: [to - at] } } as const;
    instance.device.upload(instance.tensor(own), bytes.subarray(at - byteOffset, to - byteOffset));
  };
  for (const part of others) {
    write(Math.min(end, part.byteOffset));
    at = Math.max(at, Math.min(end, part.byteOffset + part.byteLength));
  }
  write(end);
}

/** Writes the tensors that are given; each must be one of the trainer's. */
export function writeState(
  instance: Instance,
  plan: StepProgram,
  from: 0 | 1,
  given: Partial<TrainerState>,
): void {
  const { parameters, slots } = plan;
  const places = { parameters, slots, states: plan.sides[from].states };
  for (const kind of ["parameters", "slots", "states"] as const) {
    for (const [name, { bytes }] of Object.entries(given[kind] ?? {})) {
      const place = places[kind].get(name);
      assert(place !== undefined, `the trainer has "${name}" among its ${kind}`);
      writeOwn(instance, plan, place, bytes);
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
  const refs = new Map([...plan.parameters, ...plan.sides[0].states]);
  const refOf = (name: string) => refs.get(name) as TensorRef;
  const items = [...model.parameters, ...model.states];
  const shared = items.filter(({ name }) => isInParts(plan, refOf(name)));
  const whole = items.filter((item) => !shared.includes(item));
  await initialize(
    engine,
    whole.map(({ name, type, initializer }) => {
      return { name, type, initializer, into: instance.tensor(refOf(name)) };
    }),
    seed,
  );
  for await (const [name, { bytes }] of initialTensors(engine, shared, seed)) {
    writeOwn(instance, plan, refOf(name), bytes);
  }
}

/** One after the other: no rank has room for all of them. Each is read before the next is asked for. */
export async function* initialTensors(
  engine: Device,
  items: readonly (Model["parameters"][number] | Model["states"][number])[],
  seed: number,
): AsyncGenerator<[string, Tensor]> {
  for (const { name, type, initializer } of items) {
    const buffer = engine.allocate(byteLength(type));
    try {
      const into = buffer.tensor(type);
      await initialize(engine, [{ name, type, initializer, into }], seed);
      yield [name, await engine.download(into)];
    } finally {
      buffer.close();
    }
  }
}

/** What the update of a step is given: its number, counted from 1, the factors of its gradients and of its learning rate. */
export function writeScalars(
  instance: Instance,
  { scalars }: StepProgram,
  rules: Rules,
  of: { readonly step: number; readonly gradientScale: number; readonly factor: number },
): void {
  for (const [place, value] of scalarsOf(rules, scalars, of, of.factor)) {
    instance.hostTensor(place).bytes.set(value.bytes);
  }
}
