/**
 * The training step: fill, compute, decide, commit. A step is a transaction: until its loss and gradient norm are
 * known to be finite, nothing that was committed changes. It knows no data source and no file.
 */
import { assert, LockstepError } from "../errors.ts";
import { scheduleFactor } from "../optimizer/index.ts";
import { checkOptions } from "../options.ts";
import {
  cutGivesSameBits,
  findNotFinite,
  type Instance,
  instantiate,
  planTraining,
  type Side,
  type Stage,
  type StageOptions,
  type Summary,
  type TrainingPlan,
  type TrainingShare,
} from "../program/index.ts";
import { scalar, toNumbers } from "../tensor/index.ts";
import { fillKeys } from "./keys.ts";
import { Pacing } from "./pacing.ts";
import { groupsOf, shareOf } from "./sharing.ts";
import { initializeTrainer, namedTensors, type TrainerTensors } from "./state.ts";
import { notFiniteError, readScalar } from "./step-errors.ts";
import type { BatchFields, FillBatch, StepRequest, StepResult } from "./step-types.ts";

import { TRAINER_OPTIONS, type TrainerOptions } from "./trainer-options.ts";

export type { BatchFields, FillBatch, StepRequest, StepResult } from "./step-types.ts";
export type { TrainerOptions } from "./trainer-options.ts";

/** Of a step in whose batch nothing counts. */
const NOTHING = { loss: 0, gradientNorm: 0 };

/** Allocates, compiles, and makes the initial values. @throws INVALID_OPTION, ENGINE_FAILED, NO_GRADIENT */
export async function createTrainer(options: TrainerOptions): Promise<Trainer> {
  checkOptions("createTrainer", options, TRAINER_OPTIONS);
  const { engine, model, shareAs, seed = 0 } = options;
  const share = shareOf(options);
  const plan = planTraining({ ...options, lanes: engine.threads, share });
  const groups = options.ranks && (await groupsOf(options.ranks.group));
  const instance = await instantiate(engine, plan.program, { shareAs, groups });
  try {
    await initializeTrainer(engine, instance, plan, model, seed);
  } catch (error) {
    instance.close();
    throw error;
  }
  return new Trainer(options, { plan, share }, instance);
}

export class Trainer {
  readonly #options: TrainerOptions;
  readonly #instance: Instance;
  readonly #pacing: Pacing | undefined;
  #plan: TrainingPlan;
  #share: TrainingShare | undefined;
  #isCutChecked = false;
  #batch: BatchFields = {};
  #evaluationBatches: readonly BatchFields[] = [];
  #step = 0;
  #from: 0 | 1 = 0;
  #busy = false;
  #broken: Error | undefined;

  /** @internal Use `createTrainer`. */
  constructor(
    options: TrainerOptions,
    { plan, share }: { readonly plan: TrainingPlan; readonly share: TrainingShare | undefined },
    instance: Instance,
  ) {
    this.#options = options;
    this.#plan = plan;
    this.#share = share;
    this.#instance = instance;
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
    const { model, optimizer, schedule, steps, seed = 0 } = this.#options;
    const step = this.#step;
    const keys = model.randomKey === undefined ? undefined : this.#batch[model.randomKey];
    if (keys !== undefined) fillKeys(keys, seed, this.ownPositions(positions).start);
    await fill(this.#batch);
    await this.#checkCut();
    const { plan } = this;
    const side = plan.sides[this.#from];
    const stop = plan.stop && this.#instance.tensor(plan.stop);
    const paces = plan.paces && this.#instance.tensor(plan.paces);
    const tell = () => {
      stop?.bytes.set(scalar("float32", Number(isAsked)).bytes);
      if (paces !== undefined) this.#pacing?.tell(paces);
    };
    tell();
    await this.#run(side.totals, { signal });
    await this.#compute(side.compute, signal);
    if (paces !== undefined) this.#pacing?.hear(paces);
    const wishes = stop === undefined ? Number(isAsked) : readScalar(stop);
    const summary = plan.norm.readSummary(this.#instance);
    const { gradientScale } = summary;
    const isEmpty = summary.isEmpty || (await this.#holdsNothing(side, summary, tell, signal));
    const { loss, gradientNorm } = isEmpty ? NOTHING : summary;
    if (!Number.isFinite(loss) || !Number.isFinite(gradientNorm)) {
      throw await this.#notFinite(side, loss, gradientNorm);
    }
    const factor = schedule === undefined ? 1 : scheduleFactor(schedule, step, steps);
    plan.update.writeScalars(this.#instance, { step: step + 1, gradientScale }, factor);
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
      const fields = this.#evaluationBatches[size];
      assert(stage !== undefined && batch !== undefined && fields !== undefined, "a planned size");
      await fill(fields);
      await this.#instance.run(stage);
      const sums = toNumbers(this.#instance.tensor(batch.sums));
      return sums.map((sum, index) => sum * (batch.factors[index] as number));
    });
  }

  /** Before a checkpoint, between two steps: brings to `tensors` what neighbours keep of the optimizer's slots. */
  collect(): void {
    this.#check();
    this.plan.update.collect(this.#instance);
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

  /**
   * Whether all counts that the loss is divided by are 0. A loss of 0/0 is computed again with counts of 1: if all is finite then, nothing
   * else is wrong with it. All ranks see the same numbers and do the same.
   */
  async #holdsNothing(
    side: Side,
    { loss, gradientNorm }: Summary,
    tell: () => void,
    signal?: AbortSignal,
  ): Promise<boolean> {
    const { counted, norm } = this.plan;
    if (counted === undefined || readScalar(this.#instance.tensor(counted.none)) === 0)
      return false;
    const isDivided = Number.isNaN(loss) || (Number.isFinite(loss) && Number.isNaN(gradientNorm));
    if (!isDivided) return gradientNorm === 0;
    const instead = this.#instance.tensor(counted.instead);
    const set = (count: number) => instead.bytes.set(scalar(instead.dtype, count).bytes);
    try {
      set(1);
      tell();
      await this.#run([...side.totals, ...side.compute], { signal });
      const again = norm.readSummary(this.#instance);
      return Number.isFinite(again.loss) && Number.isFinite(again.gradientNorm);
    } finally {
      set(0);
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
    if (this.#isCutChecked || this.#plan.cut === undefined) return;
    this.#isCutChecked = true;
    if (this.#share?.reproducible === false) return;
    const isSame = await cutGivesSameBits(this.#instance, this.#plan, this.#plan.sides[this.#from]);
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
  async #reshare(change: Partial<TrainingShare>): Promise<void> {
    assert(this.#share !== undefined, "a rank among others has a share");
    this.#share = { ...this.#share, ...change };
    const lanes = this.#options.engine.threads;
    const plan = planTraining({ ...this.#options, lanes, share: this.#share });
    try {
      await this.#instance.load(plan.program);
    } catch (error) {
      this.#broken = error instanceof Error ? error : new Error(String(error));
      throw error;
    }
    this.#plan = plan;
    this.#bindBatches();
  }

  #bindBatches(): void {
    const tensors = (refs: TrainingPlan["batch"]) =>
      Object.fromEntries([...refs].map(([name, ref]) => [name, this.#instance.tensor(ref)]));
    this.#batch = tensors(this.#plan.batch);
    const { sizes = [] } = this.#plan.evaluation ?? {};
    this.#evaluationBatches = sizes.map(({ fields }) => tensors(fields));
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
