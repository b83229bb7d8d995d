/**
 * The training step: fill, compute, decide, commit. A step is a transaction: until its loss and
 * gradient norm are known to be finite, nothing that was committed changes. This file knows no data
 * source and no file.
 */
import type { DeviceTensor } from "../engine/index.ts";
import { assert, LockstepError } from "../errors.ts";
import { cutGivesSameBits, type Instance, instantiate } from "../execute/index.ts";
import { type Rules, rulesOf, scheduleFactor } from "../optimizer/index.ts";
import { checkOptions } from "../options.ts";
import { type Stage, type StepProgram, summaryOf } from "../program/index.ts";
import { type Tensor, toNumbers } from "../tensor/index.ts";
import { Collector } from "./collect.ts";
import { holdsNothing } from "./empty-batch.ts";
import { fillKeys, type Positions, positionsOf } from "./keys.ts";
import type { Pacing } from "./pacing.ts";
import { StateParts } from "./parts.ts";
import {
  type Fields,
  fieldsOf,
  type Planned,
  pacingOf,
  planOf,
  replan,
  type Sharing,
} from "./planned.ts";
import { runEvaluation, runMeasured, runStages, tellOthers } from "./run-stages.ts";
import type { Ranks } from "./sharing.ts";
import {
  initializeTrainer,
  initialTensors,
  namedTensors,
  type TrainerState,
  type TrainerTensors,
  writeScalars,
} from "./state.ts";
import { explainNotFinite } from "./step-errors.ts";
import {
  type FillBatch,
  type StepRequest,
  type StepResult,
  TRAINER_OPTIONS,
  type TrainerOptions,
} from "./step-types.ts";

const NOTHING = { loss: 0, gradientNorm: 0 };

/**
 * Allocates memory, compiles graphs, and computes the initial values.
 * @throws INVALID_OPTION, OUT_OF_MEMORY, ENGINE_FAILED, NO_GRADIENT
 */
export async function createTrainer(options: TrainerOptions): Promise<Trainer> {
  checkOptions("createTrainer", options, TRAINER_OPTIONS);
  const { engine, model, ranks, seed = 0, offloadFolder } = options;
  const planned = planOf(options);
  const instance = await instantiate(engine, planned.plan, ranks?.group, offloadFolder);
  try {
    await initializeTrainer(engine, instance, planned.plan, model, seed);
    // Ranks read each other's parts in the first step.
    if (planned.plan.held.length > 0) await ranks?.group.barrier();
  } catch (error) {
    instance.close();
    throw error;
  }
  return new Trainer(options, planned, instance);
}

export class Trainer {
  readonly #instance: Instance;
  readonly #rules: Rules;
  readonly #collector = new Collector();
  #options: TrainerOptions;
  #pacing: Pacing | undefined;
  #planned: Planned;
  #isAttached = true;
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
    this.#rules = rulesOf(options.optimizer);
    this.#planned = planned;
    this.#pacing = pacingOf(options, planned);
    this.#fields = fieldsOf(this.#instance, this.plan);
  }

  /** The program of the next step. It changes when micro-batches are shared out anew. */
  get plan(): StepProgram {
    return this.#planned.plan;
  }

  /** The step of one process, and how ranks share it, with the reason. */
  get planned(): Planned {
    return this.#planned;
  }

  /** Steps that were committed. */
  get steps(): number {
    return this.#step;
  }

  /** The positions of a step's samples that this rank computes, in the order of `fill`. */
  ownPositions(positions: Positions): Positions[] {
    return positionsOf(this.plan.microBatches, positions, this.#options.microBatches);
  }

  /** Makes one step. @throws NOT_FINITE naming step and tensor; weights are unchanged */
  step(request: StepRequest): Promise<StepResult> {
    return this.#alone(() => this.#transact(request));
  }

  async #transact(request: StepRequest): Promise<StepResult> {
    const { positions, fill, signal, stop: isAsked = false } = request;
    const { model, schedule, steps, seed = 0 } = this.#options;
    assert(this.#isAttached, "a trainer that was detached is attached before its next step");
    const step = this.#step;
    const keys = model.randomKey === undefined ? undefined : this.#fields.batch[model.randomKey];
    if (keys !== undefined) fillKeys(keys, seed, this.ownPositions(positions));
    await fill(this.#fields.batch);
    await this.#checkCut();
    const { plan } = this;
    const side = plan.sides[this.#from];
    const [instance, pacing] = [this.#instance, this.#pacing];
    const tell = () => tellOthers(instance, plan, isAsked, pacing);
    tell();
    await runStages(instance, side.totals, { signal });
    await this.#compute(side.compute, signal);
    if (plan.paces !== undefined) pacing?.hear(await instance.read(plan.paces));
    const [wishes = 0] =
      plan.stop === undefined ? [Number(isAsked)] : await instance.read(plan.stop);
    const summary = summaryOf(toNumbers(instance.hostTensor(plan.summary)));
    const { gradientScale } = summary;
    const again = async () => {
      tell();
      await runStages(instance, [...side.totals, ...side.compute], { signal });
    };
    const isEmpty = summary.isEmpty || (await holdsNothing(instance, plan, summary, again));
    const { loss, gradientNorm } = isEmpty ? NOTHING : summary;
    if (!Number.isFinite(loss) || !Number.isFinite(gradientNorm)) {
      const found = { step, loss, gradientNorm };
      throw await explainNotFinite(instance, this.#planned.step, side, found);
    }
    const factor = schedule === undefined ? 1 : scheduleFactor(schedule, step, steps);
    writeScalars(instance, plan, this.#rules, { step: step + 1, gradientScale, factor });
    if (isEmpty) this.#step += 1;
    else await this.#commit(side.commit);
    const reason = await this.#adapt();
    const learningRate = (this.#rules[0]?.rule.learningRate ?? 0) * factor;
    const result = { step, loss, gradientNorm, learningRate, isEmpty, stop: wishes > 0 };
    return reason === undefined ? result : { ...result, shared: reason };
  }

  /**
   * Evaluates one batch of held-out samples. Returns what it adds to the sums over all of them, in
   * the order of the plan's measures and their terms.
   * @param size the index of the batch's size among the sizes of the plan's evaluation
   */
  evaluate(size: number, fill: FillBatch): Promise<number[]> {
    const at = { plan: this.plan, from: this.#from, size, fields: this.#fields.evaluation[size] };
    return this.#alone(() => runEvaluation(this.#instance, at, fill));
  }

  /** The places of a checkpoint's tensors by name; the next step reads what is uploaded there. */
  tensors(): TrainerTensors<DeviceTensor> {
    this.#check();
    return namedTensors(this.#instance, this.plan, this.#from);
  }

  /** The values of these tensors. They may be views, so read them before the next step. */
  read(): Promise<TrainerState> {
    const of = [this.#instance, this.plan, this.#from, this.#step] as const;
    return this.#alone(() => this.#collector.read(...of));
  }

  /** Collects what other nodes hold in `path` on rank 0. All ranks call it after the same step. */
  collect(path: string): Promise<void> {
    const at = { group: this.#options.ranks?.group, step: this.#step, path };
    return this.#alone(() => this.#collector.collect(this.#instance, this.plan, at));
  }

  /** Whether this rank can read all tensors of a checkpoint. */
  get isWhole(): boolean {
    return this.#collector.hasAll(this.plan, this.#step);
  }
  /** Yields the tensors before the first step. Each must be used before the next is asked for. */
  beginning(): AsyncGenerator<[string, Tensor]> {
    const { engine, model, seed } = this.#options;
    return initialTensors(engine, [...model.parameters, ...model.states], seed ?? 0);
  }

  /** The same tensors in the parts that ranks hold, until the next step. */
  parts(): StateParts {
    this.#check();
    const of = [this.#instance, this.plan, this.#step] as const;
    return new StateParts(of[0], of[1], this.#from, this.#collector.reader(...of));
  }

  /**
   * Leaves the other ranks, between two steps and before their group is closed; the group may have
   * failed. What was committed stays, with the optimizer slots that neighbours held. The next step
   * needs an `attach` first.
   */
  detach(): void {
    assert(!this.#busy, "a trainer is detached between two steps");
    this.#check();
    if (!this.#isAttached) return;
    this.#collector.bringHere(this.#instance, this.plan, this.#step);
    this.#planned = { ...this.#planned, plan: { ...this.plan, held: [] } };
    this.#instance.detach();
    this.#isAttached = false;
  }

  /**
   * Continues with other ranks or alone, after `detach`. All ranks of the group attach together,
   * with equal tensors after the same step. After a failure the tensors are unchanged, and the
   * trainer may be attached to others.
   * @throws INVALID_OPTION when there are more ranks than micro-batches; and what the group throws
   */
  attach(ranks?: Ranks): Promise<void> {
    return this.#alone(async () => {
      assert(!this.#isAttached, "a trainer is detached before it is attached to other ranks");
      const options = { ...this.#options, ranks };
      const planned = planOf(options);
      await this.#instance.attach(planned.plan, ranks?.group);
      this.#isAttached = true;
      this.#options = options;
      this.#planned = planned;
      this.#pacing = pacingOf(options, planned);
      this.#isCutChecked = false;
      this.#fields = fieldsOf(this.#instance, this.plan);
    });
  }

  /** Continues as if `step` steps had been committed, with the tensors as they are. */
  resumeAt(step: number): void {
    this.#step = step;
  }

  close(): void {
    this.#broken ??= new LockstepError("ENGINE_CLOSED", "This trainer was closed.");
    this.#collector.close();
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

  /** Runs stages, and measures the time that this rank computes alone. */
  async #compute(stages: readonly Stage[], signal?: AbortSignal): Promise<void> {
    const { now = () => performance.now() } = this.#options.ranks ?? {};
    const seconds = await runMeasured(this.#instance, stages, { now, signal });
    this.#pacing?.measured(seconds, this.plan.microBatches.length);
  }

  /**
   * Checks before the first step that a gradient cut into pieces gives the bits of the whole graph;
   * if not, gradients are exchanged after the whole pass. Each rank decides for itself, because its
   * collectives stay the same.
   */
  async #checkCut(): Promise<void> {
    const side = this.plan.sides[this.#from];
    if (this.#isCutChecked || side.pieces === undefined) return;
    this.#isCutChecked = true;
    if (this.#options.reproducible === false) return;
    const isSame = await cutGivesSameBits(this.#instance, side);
    if (!isSame) await this.#reshare({ overlap: false });
  }

  /** Gives slow ranks fewer micro-batches after a commit. All ranks decide the same. */
  async #adapt(): Promise<string | undefined> {
    const decision = this.#pacing?.decide();
    if (decision === undefined) return undefined;
    await this.#reshare({ ranges: decision.ranges });
    return decision.reason;
  }

  /** Plans the next steps anew. After a failure the trainer cannot be used again. */
  async #reshare(change: Partial<Sharing>): Promise<void> {
    const planned = replan(this.#options, this.#planned, change);
    await this.#orBreak(() => this.#instance.load(planned.plan));
    this.#planned = planned;
    this.#fields = fieldsOf(this.#instance, this.plan);
  }

  /** After a failure the weights are half old and half new, so the trainer cannot be used again. */
  async #commit(stages: readonly Stage[]): Promise<void> {
    await this.#orBreak(() => runStages(this.#instance, stages));
    this.#from = this.#from === 0 ? 1 : 0;
    this.#step += 1;
  }

  async #orBreak(body: () => Promise<void>): Promise<void> {
    try {
      await body();
    } catch (error) {
      this.#broken = error instanceof Error ? error : new Error(String(error));
      throw error;
    }
  }

  #check(): void {
    if (this.#broken !== undefined) throw this.#broken;
  }
}
