/**
 * The training step: fill, compute, decide, commit. A step is a transaction: until its loss and gradient norm are
 * known to be finite, nothing that was committed changes. It knows no data source and no file.
 */
import type { Group } from "../collectives/index.ts";
import type { Engine, EngineTensor } from "../engine/index.ts";
import { assert, LockstepError } from "../errors.ts";
import type { Model } from "../nn/index.ts";
import { type Optimizer, type Schedule, scheduleFactor } from "../optimizer/index.ts";
import {
  evenRanges,
  findNotFinite,
  type Instance,
  instantiate,
  planTraining,
  type Range,
  type Side,
  type Stage,
  type TrainingPlan,
  type TrainingShare,
} from "../program/index.ts";
import { scalar } from "../tensor/index.ts";
import { fillKeys } from "./keys.ts";
import { Pacing } from "./pacing.ts";
import { initializeTrainer, namedTensors, type TrainerTensors } from "./state.ts";
import { notFiniteError, readScalar } from "./step-errors.ts";

export interface TrainerOptions {
  readonly engine: Engine;
  /** Built to train, for one micro-batch. */
  readonly model: Model;
  /** The same model built for evaluation, for as many samples as `evaluate` is given. */
  readonly evaluation?: Model | undefined;
  /** Parts of a step, each run on one thread, as many at once as there are threads. Default: 1, on all threads. */
  readonly microBatches?: number | undefined;
  readonly optimizer: Optimizer;
  /** Default: constant. */
  readonly schedule?: Schedule | undefined;
  /** Steps of the run, for schedules that end with it. */
  readonly steps?: number | undefined;
  /** The largest global norm of the gradient. Default: no limit. */
  readonly clip?: number | undefined;
  /** Of initial values and random layers. Default: 0. */
  readonly seed?: number | undefined;
  /** Names of the buffers for other processes: `PREFIX-parameters`. Without it they are private. */
  readonly shareAs?: string | undefined;
  /** The other ranks of the run; alone unless told. */
  readonly ranks?: Ranks | undefined;
}

/** A rank among others that train the same model, each on its micro-batches of every step. */
export interface Ranks {
  /** Its engine is the trainer's. The trainer does not close it. */
  readonly group: Group;
  /** The micro-batches of each rank; even unless told. */
  readonly ranges?: readonly Range[];
  /** Whether ranges follow the speeds of the ranks; yes, but for given ranges. It changes no bits. */
  readonly adapt?: boolean;
  /** The clock that measures speeds, in milliseconds. */
  readonly now?: () => number;
}

/** Tensors of the batch by input name; the leading dim is all samples of this rank, micro-batch after micro-batch. */
export type BatchFields = Readonly<Record<string, EngineTensor>>;
export type FillBatch = (into: BatchFields) => void | Promise<void>;

export interface StepRequest {
  /** The samples of this step in the global order: random layers depend on them, not on the number of workers. */
  readonly positions: { readonly start: number; readonly end: number };
  readonly fill: FillBatch;
  /** Asks all ranks to stop after this step. */
  readonly stop?: boolean;
  /** Ends the step before it is committed. */
  readonly signal?: AbortSignal;
}

export interface StepResult {
  /** Counted from 0. */
  readonly step: number;
  /** The mean over the micro-batches. */
  readonly loss: number;
  /** Before clipping. */
  readonly gradientNorm: number;
  readonly learningRate: number;
  /** Whether some rank asked for a stop: the same on all. */
  readonly stop: boolean;
  /** Why ranks share micro-batches in another way from the next step on. */
  readonly shared?: string;
}

/** Allocates, compiles, and makes the initial values. @throws INVALID_OPTION, ENGINE_FAILED, NO_GRADIENT */
export async function createTrainer(options: TrainerOptions): Promise<Trainer> {
  const { engine, model, shareAs, seed = 0 } = options;
  const plan = planTraining({ ...options, lanes: engine.threads, share: shareOf(options) });
  const instance = await instantiate(engine, plan.program, {
    shareAs,
    group: options.ranks?.group,
  });
  try {
    await initializeTrainer(engine, instance, plan, model, seed);
  } catch (error) {
    instance.close();
    throw error;
  }
  return new Trainer(options, plan, instance);
}

function shareOf({ ranks, microBatches = 1 }: TrainerOptions): TrainingShare | undefined {
  if (ranks === undefined || ranks.group.size === 1) return undefined;
  const { rank, size, transport } = ranks.group;
  if (size > microBatches) {
    throw new LockstepError(
      "INVALID_OPTION",
      `A step of ${microBatches} micro-batches cannot be shared by ${size} workers.`,
      { hint: `Set microBatches in the run to ${size} or more, or use fewer workers.` },
    );
  }
  const ranges = ranks.ranges ?? evenRanges(microBatches, size);
  return { rank, ranges, inPlace: transport.share !== undefined };
}

export class Trainer {
  readonly #options: TrainerOptions;
  readonly #instance: Instance;
  readonly #pacing: Pacing | undefined;
  #plan: TrainingPlan;
  #batch: BatchFields = {};
  #evaluationBatch: BatchFields = {};
  #step = 0;
  #from: 0 | 1 = 0;
  #busy = false;
  #broken: Error | undefined;

  constructor(options: TrainerOptions, plan: TrainingPlan, instance: Instance) {
    this.#options = options;
    this.#plan = plan;
    this.#instance = instance;
    const share = shareOf(options);
    const { ranges, adapt = ranges === undefined } = options.ranks ?? {};
    if (share !== undefined && adapt) {
      this.#pacing = new Pacing(share.rank, share.ranges, options.microBatches ?? 1);
    }
    this.#bindBatches();
  }

  /** Of the next step: another one than before where ranks share micro-batches in another way. */
  get plan(): TrainingPlan {
    return this.#plan;
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
    const { plan } = this;
    const { model, optimizer, schedule, steps, seed = 0 } = this.#options;
    const step = this.#step;
    const side = plan.sides[this.#from];
    const keys = model.randomKey === undefined ? undefined : this.#batch[model.randomKey];
    if (keys !== undefined) fillKeys(keys, seed, this.ownPositions(positions).start);
    await fill(this.#batch);
    const stop = plan.stop && this.#instance.tensor(plan.stop);
    stop?.bytes.set(scalar("float32", Number(isAsked)).bytes);
    const paces = plan.paces && this.#instance.tensor(plan.paces);
    if (paces !== undefined) this.#pacing?.tell(paces);
    await this.#compute(side.compute, signal);
    if (paces !== undefined) this.#pacing?.hear(paces);
    const wishes = stop === undefined ? Number(isAsked) : readScalar(stop);
    const { loss, gradientNorm, gradientScale } = plan.norm.readSummary(this.#instance);
    if (!Number.isFinite(loss) || !Number.isFinite(gradientNorm)) {
      throw await this.#notFinite(side, loss, gradientNorm);
    }
    const factor = schedule === undefined ? 1 : scheduleFactor(schedule, step, steps);
    plan.update.writeScalars(this.#instance, { step: step + 1, gradientScale }, factor);
    await this.#commit(side.commit);
    const base = optimizer.rules[0]?.rule.learningRate ?? 0;
    const reason = await this.#adapt();
    const result = { step, loss, gradientNorm, learningRate: base * factor, stop: wishes > 0 };
    return reason === undefined ? result : { ...result, shared: reason };
  }

  /** The loss of one batch of the model that was given for evaluation. */
  evaluate(fill: FillBatch): Promise<number> {
    return this.#alone(async () => {
      const stage = this.plan.sides[this.#from].evaluate;
      const { evaluationLoss } = this.plan;
      assert(
        stage !== undefined && evaluationLoss !== undefined,
        "a model for evaluation is given",
      );
      await fill(this.#evaluationBatch);
      await this.#instance.run(stage);
      return readScalar(this.#instance.tensor(evaluationLoss));
    });
  }

  /** Everything that a checkpoint holds, as views by name: what is written there is what the next step reads. */
  tensors(): TrainerTensors {
    this.#check();
    return namedTensors(this.#instance, this.plan, this.#from);
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

  /** Measures what this rank does alone: everything before the first collective. */
  async #compute(stages: readonly Stage[], signal?: AbortSignal): Promise<void> {
    const { now = () => performance.now() } = this.#options.ranks ?? {};
    const found = stages.findIndex(({ mode }) => mode === "collective");
    const alone = found < 0 ? stages.length : found;
    const start = now();
    await this.#run(stages.slice(0, alone), signal);
    this.#pacing?.measured((now() - start) / 1000, this.#plan.range.count);
    await this.#run(stages.slice(alone), signal);
  }

  /** After a commit: ranks that were slow get less to do. All ranks decide the same in the same step. */
  async #adapt(): Promise<string | undefined> {
    const decision = this.#pacing?.decide();
    const share = shareOf(this.#options);
    if (decision === undefined || share === undefined) return undefined;
    const { ranges, reason } = decision;
    const lanes = this.#options.engine.threads;
    const plan = planTraining({ ...this.#options, lanes, share: { ...share, ranges } });
    try {
      await this.#instance.load(plan.program);
    } catch (error) {
      this.#broken = error instanceof Error ? error : new Error(String(error));
      throw error;
    }
    this.#plan = plan;
    this.#bindBatches();
    return reason;
  }

  #bindBatches(): void {
    const tensors = (refs: TrainingPlan["batch"]) =>
      Object.fromEntries([...refs].map(([name, ref]) => [name, this.#instance.tensor(ref)]));
    this.#batch = tensors(this.#plan.batch);
    this.#evaluationBatch = tensors(this.#plan.evaluationBatch);
  }

  async #run(stages: readonly Stage[], signal?: AbortSignal): Promise<void> {
    for (const stage of stages) await this.#instance.run(stage, signal);
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

  /** Runs the gradient of each micro-batch again, with probes, and says where it went wrong. */
  async #notFinite(side: Side, loss: number, gradientNorm: number): Promise<LockstepError> {
    const step = this.#step;
    for (const [microBatch, run] of side.gradients.entries()) {
      const { graph } = this.plan.gradient;
      const found = await findNotFinite(this.#options.engine, this.#instance, graph, run);
      if (found === undefined) continue;
      return notFiniteError({ step, loss, gradientNorm, microBatch, ...found });
    }
    return notFiniteError({ step, loss, gradientNorm, tensor: "the sum of gradients" });
  }

  #check(): void {
    if (this.#broken !== undefined) throw this.#broken;
  }
}
