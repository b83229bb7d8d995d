/** The tensors of a trainer by name, for first values, checkpoints and export. */
import type { Device, DeviceTensor } from "../engine/index.ts";
import { type Decision, type Instance, initialize, type OwnRange } from "../execute/index.ts";
import type { ElementRange, Model } from "../nn/index.ts";
import { rulesOf, scheduleFactor } from "../optimizer/index.ts";
import { type StepProgram, scalarsOf, type TensorRef } from "../program/index.ts";
import { byteLength, bytesPerElement, elementCount, type Tensor } from "../tensor/index.ts";
import { dividedTensor, ownRanges, wholeTensor } from "./divided.ts";
import { PIECE_BYTES, rangesOf } from "./held-ranges.ts";
import type { PlaceOf } from "./parted.ts";
import type { CommittedStep, TrainerOptions } from "./step-types.ts";

/**
 * Tensors by name: places on the device, or their values. Slots are named `PARAMETER.SLOT`:
 * `blocks.0.weight.exp_avg`.
 */
export interface TrainerTensors<T> {
  readonly parameters: Readonly<Record<string, T>>;
  readonly slots: Readonly<Record<string, T>>;
  /** Tensors that steps replace and no gradient reaches, such as running statistics. */
  readonly states: Readonly<Record<string, T>>;
}

/** The values of a trainer's tensors. */
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

/**
 * Returns the values of all tensors: as `Device.download` gives them, or assembled from the parts
 * that ranks hold, tensor by tensor as each is asked for. Those ranks must not run a step
 * meanwhile.
 */
export async function readState(
  instance: Instance,
  plan: StepProgram,
  from: 0 | 1,
  others: PlaceOf,
): Promise<TrainerState> {
  const all = async (refs: ReadonlyMap<string, TensorRef>) => {
    const found = [...refs].map(async ([name, ref]): Promise<[string, Tensor]> => {
      const whole = wholeTensor(instance, plan, { name, ref, others });
      if (whole !== undefined) return [name, whole];
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

function inParts(instance: Instance, plan: StepProgram, ref: TensorRef, others: PlaceOf): Tensor {
  // This rank's copy of a part that others hold is not read, because reading would allocate its
  // pages.
  const pieces = function* () {
    for (const { from, to, held } of rangesOf(plan, ref)) {
      if (held === undefined) {
        yield instance.host(ref.buffer).view(from, to - from);
        continue;
      }
      const { memory, at: start } = others(held);
      for (let at = from; at < to; at += PIECE_BYTES) {
        const place = [start + at - held.byteOffset, Math.min(PIECE_BYTES, to - at)] as const;
        yield memory.view(...place);
        // So reading a tensor takes the memory of one piece.
        memory.letGo(...place);
      }
    }
  };
  return {
    ...ref.type,
    pieces,
    get bytes() {
      const bytes = new Uint8Array(byteLength(ref.type));
      let at = 0;
      for (const piece of pieces()) {
        bytes.set(piece, at);
        at += piece.byteLength;
      }
      return bytes;
    },
  };
}

export async function initializeTrainer(
  engine: Device,
  instance: Instance,
  plan: StepProgram,
  model: Model,
  seed: number,
): Promise<void> {
  const refs = new Map([...plan.parameters, ...plan.sides[0].states]);
  await initialize(
    engine,
    [...model.parameters, ...model.states].map(({ name, type, initializer }) => {
      const ref = refs.get(name) as TensorRef;
      const own = ownOf(plan, name, ref);
      return { name, type, initializer, into: instance.tensor(ref), own };
    }),
    seed,
  );
}

/** What this rank holds, and what not: it also holds the parts that it is the buddy for. */
export function holdingOf({ held, wards }: StepProgram): Pick<StepProgram, "held"> {
  return { held: held.filter(({ rank }) => !wards.includes(rank)) };
}

/** The elements of a whole tensor that this rank writes; undefined for all of them. */
export function ownOf(plan: StepProgram, name: string, ref: TensorRef): OwnRange[] | undefined {
  const held = isInParts(plan, ref) ? ownElements(plan, ref) : undefined;
  const tensor = dividedTensor(plan, name);
  if (tensor === undefined) return held;
  const parts = held ?? [{ start: 0, end: elementCount(ref.type.shape) }];
  return ownRanges(plan, tensor).flatMap(({ start, end, at }) =>
    parts.flatMap((part): OwnRange[] => {
      const first = Math.max(at, part.start);
      const last = Math.min(at + end - start, part.end);
      if (first >= last) return [];
      return [{ start: start + first - at, end: start + last - at, at: first }];
    }),
  );
}

/** The elements of a tensor that this rank holds. */
function ownElements(plan: StepProgram, ref: TensorRef): ElementRange[] {
  const size = bytesPerElement(ref.type.dtype);
  const own = [...rangesOf(holdingOf(plan), ref)].filter(({ held }) => held === undefined);
  return own.map(({ from, to }) => {
    return { start: (from - ref.byteOffset) / size, end: (to - ref.byteOffset) / size };
  });
}

/** Yields the first values one after the other. Each must be used before the next is asked for. */
export async function* initialTensors({
  engine,
  model,
  seed = 0,
}: Pick<TrainerOptions, "engine" | "model" | "seed">): AsyncGenerator<[string, Tensor]> {
  for (const { name, type, initializer } of [...model.parameters, ...model.states]) {
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

/**
 * Writes what the update of a step needs: its number, counted from 1, and the factors of its
 * gradients and of its learning rate.
 */
export function writeScalars(
  instance: Instance,
  { scalars }: StepProgram,
  options: Pick<TrainerOptions, "optimizer" | "schedule" | "steps">,
  of: { readonly step: number; readonly gradientScale: number },
): void {
  const factor = factorOf(options, of.step - 1);
  for (const [place, value] of scalarsOf(rulesOf(options.optimizer), scalars, of, factor)) {
    instance.hostTensor(place).bytes.set(value.bytes);
  }
}

/** What the schedule makes of the learning rate in a step, counted from 0. */
function factorOf({ schedule, steps }: Pick<TrainerOptions, "schedule" | "steps">, step: number) {
  return schedule === undefined ? 1 : scheduleFactor(schedule, step, steps);
}

/** What is told of a committed step. */
export function committedStep(
  options: Pick<TrainerOptions, "optimizer" | "schedule" | "steps">,
  { steps, loss, gradientNorm, isEmpty }: Decision,
): CommittedStep {
  const [first] = rulesOf(options.optimizer);
  const learningRate = (first?.rule.learningRate ?? 0) * factorOf(options, steps - 1);
  return { step: steps - 1, loss, gradientNorm, learningRate, isEmpty };
}
