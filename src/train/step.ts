/**
 * The training step: fill, compute, decide, commit. A step is a transaction: until its loss and gradient norm are
 * known to be finite, nothing that was committed changes. It knows no data source and no file.
 */
import type { Device, DeviceTensor } from "../engine/index.ts";
import { assert, LockstepError } from "../errors.ts";
import { scheduleFactor } from "../optimizer/index.ts";
import type { StepGraph } from "../plan/index.ts";
import {
  cutGivesSameBits,
  type Instance,
  instantiate,
  type Stage,
  type StageOptions,
  type StepProgram,
  scalarsOf,
  summaryOf,
  type TensorRef,
} from "../program/index.ts";
import { tensorFrom, toNumbers } from "../tensor/index.ts";
import { fillKeys } from "./keys.ts";
import type { Pacing } from "./pacing.ts";
import {
  type Fields,
  fieldsOf,
  type Planned,
  pacingOf,
  planOf,
  replan,
  type Sharing,
} from "./planned.ts";
import type { Ranks } from "./sharing.ts";
import {
  downloadState,
  initializeTrainer,
  namedTensors,
  type TrainerState,
  type TrainerTensors,
  uploadState,
} from "./state.ts";
import { explainNotFinite } from "./step-errors.ts";
import type { FillBatch, StepRequest, StepResult, TrainerOptions } from "./step-types.ts";

export type {
  BatchFields,
  FillBatch,
  StepRequest,
  StepResult,
  TrainerOptions,
} from "./step-types.ts";

/** Of a step in whose batch nothing counts. */
const NOTHING = { loss: 0, gradientNorm: 0 };

/** Allocates, compiles, and makes the initial values. @throws INVALID_OPTION, ENGINE_FAILED, NO_GRADIENT */
export async function createTrainer(options: TrainerOptions): Promise<Trainer> {
  const { engine, model, ranks, seed = 0 } = options;
  const planned = planOf(options);
  const instance = await instantiate(engine, planned.plan, ranks?.group);
  try {
    await initializeTrainer(engine, instance, planned.plan, model, seed);
  } catch (error) {
    instance.close();
    throw error;
  }
  return new Trainer(options, planned, instance);
}

export class Trainer {
  readonly #instance: Instance;
  #options: TrainerOptions;
  #pacing: Pacing | undefined;
  #plan: StepProgram;
  #planned: Planned;
  #isCutChecked = false;
  #fields: Fields;
  #step = 0;
  #from: 0 | 1 = 0;
  #busy = false;
  #broken: Error | undefined;

  /** @internal Use `createTrainer`. */
  constructor(options: TrainerOptions, planned: Planned, instance: Instance) {
    this.#options = options;
    this.#instance = instance;
    this.#plan = planned.plan;
    this.#planned = planned;
    this.#pacing = pacingOf(options, planned);
    this.#fields = fieldsOf(this.#instance, this.#plan);
  }

  /** Of the next step: another one than before where ranks share micro-batches in another way. */
  get plan(): StepProgram {
    return this.#plan;
  }

  /** The step of one process, before any strategy. */
  get stepGraph(): StepGraph {
    return this.#planned.step;
  }

  get engine(): Device {
    return this.#options.engine;
  }

  /** Steps that were committed. */
  get steps(): number {
    return this.#step;
  }

  /** Those of a step's samples that this rank computes: what `fill` is asked for. */
  ownPositions({ start, end }: StepRequest["positions"]): StepRequest["positions"] {
    const { first, count } = this.plan.range;
    const size = (end - start) / (this.#options.microBatches ?? 1);
    return { start: start + first * size, end: start + (first + count) * size };
  }

  /** One step. @throws NOT_FINITE naming the step and the first tensor that is not finite; weights are untouched */
  step(request: StepRequest): Promise<StepResult> {
    return this.#alone(() => this.#transact(request));
  }

  async #transact(request: StepRequest): Promise<StepResult> {
    const { positions, fill, signal, stop: isAsked = false } = request;
    const { model, optimizer, schedule, steps, seed = 0 } = this.#options;
    const step = this.#step;
    const keys = model.randomKey === undefined ? undefined : this.#fields.batch[model.randomKey];
    if (keys !== undefined) fillKeys(keys, seed, this.ownPositions(positions).start);
    await fill(this.#fields.batch);
    await this.#checkCut();
    const { plan } = this;
    const side = plan.sides[this.#from];
    this.#write(plan.stop, [Number(isAsked)]);
    if (this.#pacing !== undefined) this.#write(plan.paces, this.#pacing.told());
    await this.#run(side.totals, { signal });
    await this.#compute(side.compute, signal);
    if (plan.paces !== undefined) this.#pacing?.hear(await this.#read(plan.paces));
    const [wishes = 0] = plan.stop === undefined ? [Number(isAsked)] : await this.#read(plan.stop);
    const summary = summaryOf(toNumbers(this.#instance.hostTensor(plan.summary)));
    const { isEmpty, gradientScale } = summary;
    const { loss, gradientNorm } = isEmpty ? NOTHING : summary;
    if (!Number.isFinite(loss) || !Number.isFinite(gradientNorm)) {
      throw await explainNotFinite(this.#instance, this.stepGraph, side, {
        step,
        loss,
        gradientNorm,
      });
    }
    const factor = schedule === undefined ? 1 : scheduleFactor(schedule, step, steps);
    const context = { step: step + 1, gradientScale };
    for (const [place, value] of scalarsOf(optimizer, plan.scalars, context, factor)) {
      this.#instance.hostTensor(place).bytes.set(value.bytes);
    }
    if (isEmpty) this.#step += 1;
    else await this.#commit(side.commit);
    const base = optimizer.rules[0]?.rule.learningRate ?? 0;
    const reason = await this.#adapt();
    const learningRate = base * factor;
    const result = { step, loss, gradientNorm, learningRate, isEmpty, stop: wishes > 0 };
    return reason === undefined ? result : { ...result, shared: reason };
  }

  /**
   * One batch of held-out samples. What it adds to the sums over all of them, in the order of the plan's measures and their terms.
   * @param size which of the sizes of the plan's evaluation it has
   */
  evaluate(size: number, fill: FillBatch): Promise<number[]> {
    return this.#alone(async () => {
      const stage = this.plan.sides[this.#from].evaluate[size];
      const batch = this.plan.evaluation?.sizes[size];
      const fields = this.#fields.evaluation[size];
      assert(stage !== undefined && batch !== undefined && fields !== undefined, "a planned size");
      await fill(fields);
      await this.#instance.run(stage);
      const sums = toNumbers(this.#instance.hostTensor(batch.sums));
      return sums.map((sum, index) => sum * (batch.factors[index] as number));
    });
  }

  /** Before a checkpoint, between two steps: brings to `tensors` what neighbours keep of the optimizer's slots. */
  collect(): void {
    this.#check();
    for (const { buffer, rank, byteOffset, byteLength } of this.plan.held) {
      const theirs = this.#instance.host(buffer, rank).bytes;
      const end = byteOffset + byteLength;
      this.#instance.host(buffer).bytes.set(theirs.subarray(byteOffset, end), byteOffset);
    }
  }

  /** The places of everything that a checkpoint holds, by name: what is uploaded there is what the next step reads. */
  tensors(): TrainerTensors<DeviceTensor> {
    this.#check();
    return namedTensors(this.#instance, this.plan, this.#from);
  }

  /** What they hold, as `Device.download` gives it: perhaps views, so it is read before the next step. */
  read(): Promise<TrainerState> {
    return this.#alone(() => downloadState(this.engine, this.tensors()));
  }

  /** Puts other values in the place of some. */
  write(given: Partial<TrainerState>): void {
    uploadState(this.engine, this.tensors(), given);
  }

  /**
   * Lets go of the other ranks, between two steps and before their group is closed; it may have failed. What was
   * committed stays, with what neighbours kept of the optimizer's slots. The next step needs an `attach` first.
   */
  detach(): void {
    assert(!this.#busy, "a trainer is detached between two steps");
    this.collect();
    this.#instance.detach();
  }

  /**
   * After `detach`: goes on with other ranks, or alone. All ranks of the group attach together, with equal tensors after
   * the same step. After a failure in here the tensors are as before, and the trainer may be detached and attached again.
   * @throws INVALID_OPTION for more ranks than micro-batches
   */
  attach(ranks?: Ranks): Promise<void> {
    return this.#alone(async () => {
      const options = { ...this.#options, ranks };
      const planned = planOf(options);
      await this.#instance.attach(planned.plan, ranks?.group);
      this.#options = options;
      this.#plan = planned.plan;
      this.#planned = planned;
      this.#pacing = pacingOf(options, planned);
      this.#isCutChecked = false;
      this.#fields = fieldsOf(this.#instance, this.#plan);
    });
  }

  /** Goes on as if `step` steps had been committed, with the tensors as they are now. */
  resumeAt(step: number): void {
    this.#step = step;
  }

  close(): void {
    this.#broken ??= new LockstepError("ENGINE_CLOSED", "This trainer was closed.");
    this.#instance.close();
  }

  async #alone<T>(body: () => Promise<T>): Promise<T> {
    this.#check();
    assert(!this.#busy, "steps and evaluations of one trainer follow each other");
    this.#busy = true;
    try {
      return await body();
    } finally {
      this.#busy = false;
    }
  }

  /** Measures what this rank does alone: everything before the first collective, and segments beside collectives. */
  async #compute(stages: readonly Stage[], signal?: AbortSignal): Promise<void> {
    const { now = () => performance.now() } = this.#options.ranks ?? {};
    let milliseconds = 0;
    const around = async (body: () => Promise<void>) => {
      const start = now();
      await body();
      milliseconds += now() - start;
    };
    const found = stages.findIndex(({ mode }) => mode === "collective" || mode === "tasks");
    const alone = found < 0 ? stages.length : found;
    await around(() => this.#run(stages.slice(0, alone), { signal }));
    await this.#run(stages.slice(alone), { signal, around });
    this.#pacing?.measured(milliseconds / 1000, this.#plan.range.count);
  }

  /**
   * Before the first step of a cut gradient: only if it gives the bits of the whole graph are gradients made so. Each rank
   * decides for itself, for its own collectives stay the same.
   */
  async #checkCut(): Promise<void> {
    const side = this.#plan.sides[this.#from];
    if (this.#isCutChecked || side.pieces === undefined) return;
    this.#isCutChecked = true;
    if (this.#options.reproducible === false) return;
    const isSame = await cutGivesSameBits(this.#instance, side);
    if (!isSame) await this.#reshare({ overlap: false });
  }

  /** After a commit: ranks that were slow get less to do. All ranks decide the same in the same step. */
  async #adapt(): Promise<string | undefined> {
    const decision = this.#pacing?.decide();
    if (decision === undefined) return undefined;
    await this.#reshare({ ranges: decision.ranges });
    return decision.reason;
  }

  /** Plans the next steps anew. After a failure in here the trainer is not used again. */
  async #reshare(change: Partial<Sharing>): Promise<void> {
    const planned = replan(this.#options, this.#planned, change);
    try {
      await this.#instance.load(planned.plan);
    } catch (error) {
      this.#broken = error instanceof Error ? error : new Error(String(error));
      throw error;
    }
    this.#planned = planned;
    this.#plan = planned.plan;
    this.#fields = fieldsOf(this.#instance, this.#plan);
  }

  /** Numbers that travel beside the gradients; nothing where the plan has no place for them. */
  #write(ref: TensorRef | undefined, values: readonly number[]): void {
    if (ref === undefined) return;
    const { dtype, shape } = ref.type;
    this.engine.upload(this.#instance.tensor(ref), tensorFrom(dtype, shape, values).bytes);
  }

  async #read(ref: TensorRef): Promise<number[]> {
    return toNumbers(await this.engine.download(this.#instance.tensor(ref)));
  }

  async #run(stages: readonly Stage[], options: StageOptions = {}): Promise<void> {
    for (const stage of stages) await this.#instance.run(stage, options);
  }

  /** After a failure in here weights are half old and half new: the trainer is not used again. */
  async #commit(stages: readonly Stage[]): Promise<void> {
    try {
      await this.#run(stages);
    } catch (error) {
      this.#broken = error instanceof Error ? error : new Error(String(error));
      throw error;
    }
    this.#from = this.#from === 0 ? 1 : 0;
    this.#step += 1;
  }

  #check(): void {
    if (this.#broken !== undefined) throw this.#broken;
  }
}
