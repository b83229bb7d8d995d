/**
 * The training step: fill, compute, decide, commit. A step is a transaction: until its loss and gradient norm are
 * known to be finite, nothing that was committed changes. It knows no data source and no file.
 */
import type { Engine, EngineTensor } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import type { ModelDefinition } from "../nn/index.ts";
import { type Optimizer, type Schedule, scheduleFactor } from "../optimizer/index.ts";
import {
  firstNotFinite,
  type Instance,
  instantiate,
  planTraining,
  type Side,
  type Stage,
  type TrainingPlan,
} from "../program/index.ts";
import type { DType } from "../tensor/index.ts";
import { fillKeys } from "./keys.ts";
import { initializeTrainer, namedTensors, type TrainerTensors } from "./state.ts";
import { microBatchSize, notFiniteError, readScalar } from "./step-errors.ts";

export interface TrainerOptions {
  readonly engine: Engine;
  readonly model: ModelDefinition;
  /** Samples of a step. */
  readonly batch: number;
  /** Parts of a step that are run one after the other; `batch` is a multiple. Default: 1. */
  readonly microBatches?: number;
  readonly optimizer: Optimizer;
  /** Default: constant. */
  readonly schedule?: Schedule;
  /** Steps of the run, for schedules that end with it. */
  readonly steps?: number;
  /** The largest global norm of the gradient. Default: no limit. */
  readonly clip?: number;
  /** Of initial values and random layers. Default: 0. */
  readonly seed?: number;
  readonly dtype?: DType;
  /** Names of the buffers for other processes: `PREFIX-parameters`. */
  readonly shareAs?: string;
}

/** Tensors of the batch by input name; the leading dim is all samples of the step. */
export type BatchFields = Readonly<Record<string, EngineTensor>>;
export type FillBatch = (fields: BatchFields) => void | Promise<void>;

export interface StepResult {
  /** Counted from 0. */
  readonly step: number;
  /** The mean over the micro-batches. */
  readonly loss: number;
  /** Before clipping. */
  readonly gradientNorm: number;
  readonly learningRate: number;
}

/** @throws INVALID_OPTION, ENGINE_FAILED, and what the model's `build` throws */
export async function createTrainer(options: TrainerOptions): Promise<Trainer> {
  const { engine, dtype, optimizer, clip, shareAs, seed = 0, microBatches = 1 } = options;
  const batch = microBatchSize(options.batch, microBatches);
  const shared = { batch, ...(dtype === undefined ? {} : { dtype }) };
  const model = options.model.build({ ...shared, mode: "train" });
  const evaluation = options.model.build({ ...shared, mode: "eval" });
  const plan = planTraining({
    model,
    evaluation,
    optimizer,
    microBatches,
    ...(clip === undefined ? {} : { clip }),
  });
  const instance = await instantiate(
    engine,
    plan.program,
    shareAs === undefined ? {} : { shareAs },
  );
  try {
    await initializeTrainer(engine, instance, plan, model, seed);
  } catch (error) {
    instance.close();
    throw error;
  }
  return new Trainer(options, plan, instance, model.randomKey);
}

export class Trainer {
  readonly plan: TrainingPlan;
  readonly #options: TrainerOptions;
  readonly #instance: Instance;
  readonly #randomKey: string | undefined;
  readonly #batch: BatchFields;
  readonly #evaluationBatch: BatchFields;
  #step = 0;
  #from: 0 | 1 = 0;
  #broken: Error | undefined;

  constructor(
    options: TrainerOptions,
    plan: TrainingPlan,
    instance: Instance,
    randomKey: string | undefined,
  ) {
    this.#options = options;
    this.plan = plan;
    this.#instance = instance;
    this.#randomKey = randomKey;
    const tensors = (refs: TrainingPlan["batch"]) =>
      Object.fromEntries([...refs].map(([name, ref]) => [name, instance.tensor(ref)]));
    this.#batch = tensors(plan.batch);
    this.#evaluationBatch = tensors(plan.evaluationBatch);
  }

  /** Steps that were committed. */
  get step(): number {
    return this.#step;
  }

  /**
   * One step. @throws NOT_FINITE naming the step and the first tensor that is not finite; weights are untouched
   */
  async train(fill: FillBatch, signal?: AbortSignal): Promise<StepResult> {
    const { plan } = this;
    const { optimizer, schedule, steps, seed = 0, batch } = this.#options;
    this.#check();
    const step = this.#step;
    const side = plan.sides[this.#from];
    if (this.#randomKey !== undefined) {
      fillKeys(this.#batch[this.#randomKey] as EngineTensor, seed, step * batch);
    }
    await fill(this.#batch);
    await this.#run(side.compute, signal);
    const { loss, gradientNorm, gradientScale } = plan.norm.readSummary(this.#instance);
    if (!Number.isFinite(loss) || !Number.isFinite(gradientNorm)) {
      throw await this.#notFinite(side, loss, gradientNorm);
    }
    const factor = schedule === undefined ? 1 : scheduleFactor(schedule, step, steps);
    plan.update.writeScalars(this.#instance, { step: step + 1, gradientScale }, factor);
    await this.#commit(side.commit);
    const base = optimizer.rules[0]?.rule.learningRate ?? 0;
    return { step, loss, gradientNorm, learningRate: base * factor };
  }

  /** The mean loss over batches, in `eval` mode. Each is filled with as many samples as a micro-batch has. */
  async evaluate(fills: Iterable<FillBatch> | AsyncIterable<FillBatch>): Promise<number> {
    this.#check();
    const { evaluationLoss } = this.plan;
    const stage = this.plan.sides[this.#from].evaluate;
    if (stage === undefined || evaluationLoss === undefined) return Number.NaN;
    let [sum, count] = [0, 0];
    for await (const fill of fills) {
      await fill(this.#evaluationBatch);
      await this.#instance.run(stage);
      sum += readScalar(this.#instance.tensor(evaluationLoss));
      count += 1;
    }
    return sum / count;
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
      const found = await firstNotFinite(this.#options.engine, this.#instance, graph, run);
      if (found === undefined) continue;
      return notFiniteError({ step, loss, gradientNorm, microBatch, ...found });
    }
    return notFiniteError({ step, loss, gradientNorm, tensor: "the sum of gradients" });
  }

  #check(): void {
    if (this.#broken !== undefined) throw this.#broken;
  }
}
