/**
 * The training step: fill, compute, decide, commit. A step is a transaction: until its loss and
 * gradient norm are known to be finite, nothing that was committed changes. This file knows no data
 * source and no file.
 */
import type { DeviceTensor } from "../engine/index.ts";
import { assert, LockstepError } from "../errors.ts";
import type { Decision, Instance, Journal } from "../execute/index.ts";
import { type Stage, type StepProgram, summaryOf } from "../program/index.ts";
import { type Tensor, toNumbers } from "../tensor/index.ts";
import { Collector } from "./collect.ts";
import { Cuts } from "./cuts.ts";
import { holdsNothing } from "./empty-batch.ts";
import { Guard } from "./guard.ts";
import { fillKeys, type Positions, positionsOf } from "./keys.ts";
import type { Pacing } from "./pacing.ts";
import { StateParts } from "./parts.ts";
import { type Fields, fieldsOf, type Planned, pacingOf, replan, type Sharing } from "./planned.ts";
import { journalOf, moveTo, type Standing } from "./regroup.ts";
import {
  endOf,
  runCommit,
  runEvaluation,
  runMeasured,
  runStages,
  tellOthers,
  wishesOf,
} from "./run-stages.ts";
import type { Ranks } from "./sharing.ts";
import {
  committedStep,
  initialTensors,
  namedTensors,
  type TrainerState,
  type TrainerTensors,
  writeScalars,
} from "./state.ts";
import { explainNotFinite, isSound } from "./step-errors.ts";
import {
  type CommittedStep,
  type FillBatch,
  type StepRequest,
  type StepResult,
  type TrainerOptions,
} from "./step-types.ts";

const NOTHING = { loss: 0, gradientNorm: 0 };

export class Trainer {
  #instance: Instance;
  #journal: Journal | undefined;
  #collector = new Collector();
  #options: TrainerOptions;
  #pacing: Pacing | undefined;
  #planned: Planned;
  readonly #cuts = new Cuts();
  #isCutChecked = false;
  #fields: Fields;
  #step = 0;
  #told = 0; // steps whose results were returned; one more may be committed
  #last: Decision | undefined;
  #from: 0 | 1 = 0;
  #busy = false;
  #moving: Standing[] | undefined;
  #broken: Error | undefined;
  #guard: Guard;

  /** @internal Use `createTrainer` or `joinTrainer`. */
  constructor(options: TrainerOptions, planned: Planned, instance: Instance) {
    this.#options = options;
    this.#instance = instance;
    this.#planned = planned;
    this.#pacing = pacingOf(options, planned);
    this.#fields = fieldsOf(this.#instance, this.plan);
    this.#journal = journalOf(this.#instance, this.plan);
    this.#guard = new Guard(options, 0);
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
    const { positions, fill, stop = false, regroup = false } = request;
    const signal = endOf(request, this.#options.ranks);
    const own = { stop, regroup };
    const { model, seed = 0 } = this.#options;
    const step = this.#step;
    const keys = model.randomKey === undefined ? undefined : this.#fields.batch[model.randomKey];
    if (keys !== undefined) fillKeys(keys, seed, this.ownPositions(positions));
    await fill(this.#fields.batch);
    await this.#checkCut();
    const before = this.#standing();
    await this.#guard.begin(before);
    const { plan } = this;
    const side = plan.sides[this.#from];
    const [instance, pacing] = [this.#instance, this.#pacing];
    const tell = () => tellOthers(instance, plan, own, pacing);
    tell();
    await runStages(instance, side.totals, { signal });
    await this.#compute(side.compute, signal);
    const again = async () => {
      tell();
      await runStages(instance, [...side.totals, ...side.compute], { signal });
    };
    const heard = () => summaryOf(toNumbers(instance.hostTensor(plan.summary)));
    await this.#guard.check(before, { again, isSound: () => isSound(heard()) });
    if (plan.paces !== undefined) pacing?.hear(await instance.read(plan.paces));
    const wishes = await wishesOf(instance, plan, own);
    const summary = heard();
    const { gradientScale } = summary;
    const isEmpty = summary.isEmpty || (await holdsNothing(instance, plan, summary, again));
    const { loss, gradientNorm } = isEmpty ? NOTHING : summary;
    if (!isSound({ loss, gradientNorm })) {
      const found = { step, loss, gradientNorm };
      throw await explainNotFinite(instance, this.#planned.step, side, found);
    }
    writeScalars(instance, plan, this.#options, { step: step + 1, gradientScale });
    const decision = { steps: step + 1, gradientScale, isEmpty, loss, gradientNorm };
    this.#journal?.decide(decision);
    if (isEmpty) [this.#step, this.#last] = [step + 1, decision];
    else await this.#commit(side.commit, decision);
    const adapted = await this.#adapt();
    await this.#guard.committed(this.#standing());
    this.#told = this.#step;
    return { ...committedStep(this.#options, decision), ...wishes, ...adapted };
  }

  /**
   * Evaluates one batch of held-out samples, of the plan's size of this index. Returns what it adds
   * to the sums over all of them, in the order of the plan's measures and their terms.
   */
  evaluate(size: number, fill: FillBatch): Promise<number[]> {
    const at = { plan: this.plan, from: this.#from, size, fields: this.#fields.evaluation[size] };
    return this.#alone(() => runEvaluation(this.#instance, at, fill));
  }

  /** Checks the state between two steps, and heals it. All ranks call it together. @throws DRIFT */
  verify(): Promise<void> {
    return this.#alone(() => this.#guard.verify(this.#standing()));
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
    const at = { group: this.#options.ranks?.group, step: this.#step, from: this.#from, path };
    return this.#alone(() => this.#collector.collect(this.#instance, this.plan, at));
  }

  /** Whether this rank can read all tensors of a checkpoint. */
  get isWhole(): boolean {
    return this.#collector.hasAll(this.plan, this.#step);
  }
  /** Yields the tensors before the first step. Each must be used before the next is asked for. */
  beginning(): AsyncGenerator<[string, Tensor]> {
    return initialTensors(this.#options);
  }

  /** The same tensors in the parts that ranks hold, until the next step. */
  parts(): StateParts {
    this.#check();
    const of = [this.#instance, this.plan, this.#step] as const;
    return new StateParts(of[0], of[1], this.#from, this.#collector.placeOf(...of));
  }

  /**
   * Continues with other ranks, or alone. All ranks of the new group call this together, or
   * `joinTrainer`; those that have trainers were in one group before, which may have failed in the
   * middle of a step, and is still open. A step that any of them has decided to commit is committed;
   * another one is to be made again. After a failure the trainer may move to yet another group.
   * @returns the step that was committed meanwhile, if `step` has not returned it
   * @throws INVALID_OPTION; PEER_LOST when no rank can read a part of the state; the group's error
   */
  regroup(ranks?: Ranks): Promise<CommittedStep | undefined> {
    return this.#alone(async () => {
      const told = this.#told;
      this.#moving ??= [this.#standing()];
      const moved = (await moveTo({ ...this.#options, ranks }, this.#moving)) as Standing;
      this.#take(moved);
      const { last, steps } = moved;
      return last && steps !== told ? committedStep(this.#options, last) : undefined;
    });
  }

  #standing(): Standing {
    const [options, planned, instance] = [this.#options, this.#planned, this.#instance];
    return { options, planned, instance, from: this.#from, steps: this.#step, last: this.#last };
  }

  #take({ options, planned, instance, from, steps, last }: Standing): void {
    this.#last = last;
    this.#collector.close();
    this.#collector = new Collector();
    [this.#options, this.#planned, this.#instance] = [options, planned, instance];
    [this.#from, this.#step, this.#told, this.#moving] = [from, steps, steps, undefined];
    this.#pacing = pacingOf(options, planned);
    this.#isCutChecked = false;
    this.#fields = fieldsOf(instance, this.plan);
    this.#journal = journalOf(instance, this.plan);
    this.#guard = new Guard(options, steps, this.#guard);
  }

  /** Continues as if `step` steps had been committed, with the tensors as they are. */
  resumeAt(step: number): void {
    [this.#step, this.#told] = [step, step];
    this.#guard = new Guard(this.#options, step);
  }

  close(): void {
    this.#broken ??= new LockstepError("ENGINE_CLOSED", "This trainer was closed.");
    this.#collector.close();
    for (const { instance } of this.#moving ?? [this.#standing()]) instance.close();
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
   * if not, it is exchanged after the whole pass. The collectives of ranks are the same either way.
   */
  async #checkCut(): Promise<void> {
    const { reproducible = true, ranks } = this.#options;
    if (this.#isCutChecked || !reproducible) return;
    this.#isCutChecked = true;
    const at = { plan: this.plan, from: this.#from };
    const isRight = await this.#cuts.areRight(this.#instance, at, ranks?.group);
    if (!isRight) await this.#reshare({ overlap: false });
  }

  /** Gives slow ranks fewer micro-batches after a commit. All ranks decide the same. */
  async #adapt(): Promise<Pick<StepResult, "shared" | "tooSlow">> {
    const decision = this.#pacing?.decide();
    if (decision === undefined) return {};
    if (decision.isNew) await this.#reshare({ ranges: decision.ranges });
    const { reason, tooSlow } = decision;
    return reason === "" ? { tooSlow } : { shared: reason, tooSlow };
  }

  /** Plans the next steps anew. After a failure the trainer cannot be used again. */
  async #reshare(change: Partial<Sharing>): Promise<void> {
    const planned = replan(this.#options, this.#planned, change);
    await this.#orBreak(() => this.#instance.load(planned.plan));
    this.#planned = planned;
    this.#fields = fieldsOf(this.#instance, this.plan);
  }

  /** After a failure the weights are half old and half new, so the trainer cannot be used again. */
  async #commit(commit: readonly Stage[], decision: Decision): Promise<void> {
    const [instance, journal] = [this.#instance, this.#journal];
    const committed = () => {
      [this.#from, this.#step, this.#last] = [this.#from === 0 ? 1 : 0, decision.steps, decision];
    };
    await this.#orBreak(() => runCommit(instance, this.plan, { commit, journal, committed }));
    instance.trim(); // no rank of this group goes back to the one before
  }

  async #orBreak(body: () => Promise<void>): Promise<void> {
    try {
      await body();
    } catch (error) {
      // The next group finishes what this one has not.
      if (this.#options.ranks?.group.transport.signal.aborted === true) throw error;
      this.#broken = error instanceof Error ? error : new Error(String(error));
      throw error;
    }
  }

  #check(): void {
    if (this.#broken !== undefined) throw this.#broken;
  }
}
