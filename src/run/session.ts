/** Everything that the steps of a run share. It is made before the first step. */
import { type Dataset, type ModelInput, openData } from "../data/index.ts";
import type { Device } from "../engine/index.ts";
import { typeOf } from "../graph/index.ts";
import type { Model } from "../nn/index.ts";
import type { EventSink } from "../telemetry/index.ts";
import { elementCount } from "../tensor/index.ts";
import { createTrainer, meetRoom, type Ranks, sharingOf, type Trainer } from "../train/index.ts";
import { agree } from "./agree.ts";
import { bytesWritten, checkIdentity, hashOfState, loadCheckpoint } from "./checkpoint.ts";
import { type ExportPlan, planExport, trainedGraph } from "./export.ts";
import { factsOf } from "./facts.ts";
import { fieldRanges } from "./field-ranges.ts";
import { checkHolds, type Fingerprint, fingerprintOf } from "./fingerprint.ts";
import {
  type Beginning,
  checkRoom,
  nearestFolder,
  prepareFolder,
  type RunFolder,
} from "./folder.ts";
import { samplingGraph } from "./generate.ts";
import type { CheckpointHead, Progress } from "./head.ts";
import { type Change, type Changeable, type Identity, identityOf } from "./identity.ts";
import type { Chosen } from "./resume.ts";
import type { Run } from "./run.ts";
import { Saver } from "./saver.ts";
import { Validation } from "./validation.ts";

export interface TrainOptions {
  readonly engine: Device;
  readonly folder: RunFolder;
  /** The folder that relative paths and globs of the run's data start from. */
  readonly baseDir: string;
  /** The folders below which the run's data must lie, after following links. Default: anywhere. */
  readonly roots?: readonly string[] | undefined;
  /** The digest that the data must have. Default: any. */
  readonly holds?: Fingerprint | undefined;
  readonly beginning: Beginning;
  /** The options that may change in a resumed run. */
  readonly changes?: readonly Changeable[] | undefined;
  /** Aborting it asks for a clean stop: the current step is finished and saved. */
  readonly signal: AbortSignal;
  readonly onEvent: EventSink;
  /** Returns the milliseconds since the process started. */
  readonly now: () => number;
  /** Returns the bytes of memory that are free. Default: what the system says. */
  readonly freeMemory?: (() => number) | undefined;
  /** The other workers of the run, which all get the same run. Default: none. */
  readonly ranks?: Ranks | undefined;
}

/**
 * Here, aborting `signal` ends the loop; with several workers, on all of them after the same step.
 */
export interface SessionOptions extends TrainOptions {
  /**
   * Aborted when a stop is asked for on this worker. Before the first step it takes effect at once,
   * because nothing is lost.
   */
  readonly asked: AbortSignal;
  stopNow(): void;
  /**
   * Ends the work that ranks do together. A stop that is asked for afterwards takes effect at once.
   */
  goOnAlone(): void;
}

export interface Session {
  readonly run: Run;
  readonly options: SessionOptions;
  readonly model: Model;
  readonly data: Dataset;
  readonly trainer: Trainer;
  readonly validation: Validation | undefined;
  /** The state of the run when this session began. */
  readonly before: Before;
  readonly identity: Identity;
  readonly startedMs: number;
  /**
   * Whether this worker validates, writes the folder and reports events. One worker of a run does.
   */
  readonly leads: boolean;
  /** This worker's part in writing checkpoints. */
  readonly saver: Saver;
  /** What the leader exports at the end. */
  readonly exporting: ExportPlan | undefined;
}

/** The state that a run continues from. */
export interface Before extends Progress {
  /** The options that have changed since then. */
  readonly changes: readonly Change[];
  /** Sentences about newer checkpoints that cannot be used. */
  readonly notices: readonly string[];
  /** Whether the checkpoint is too old to show that it is whole and belongs to this run. */
  readonly isOld: boolean;
}

/**
 * Opens a session. `from` is the checkpoint, when the run is resumed.
 * @throws the reason of `asked` when it is aborted meanwhile; nothing was written then
 */
export async function openSession(
  run: Run,
  options: SessionOptions,
  from?: Chosen,
): Promise<Session> {
  const head = from?.head;
  const { engine, baseDir, roots, asked, now } = options;
  const startedMs = now();
  const leads = isLeader(options);
  const microBatch = run.batch / run.microBatches;
  const model = run.model.build({ batch: microBatch, mode: "train" });
  // What could fail after the last step fails here.
  const exporting = leads ? planExport(run.model, [1, microBatch]) : undefined;
  const inputs = inputsOf(model);
  const data = await unlessAborted(
    openData(run.data, { inputs, baseDir, roots, batch: run.batch }),
    asked,
  );
  let trainer: Trainer | undefined;
  try {
    asked.throwIfAborted();
    const fingerprint = await fingerprintOf(data, inputs, asked);
    checkHolds(fingerprint, options.holds);
    const identity = identityOf(run, model, fingerprint);
    const changes = head === undefined ? [] : checkIdentity(head, identity, options.changes);
    trainer = await createTrainer({
      engine,
      model,
      evaluation: run.model.build({ batch: microBatch, mode: "eval" }),
      evaluationSamples: data.validation && Math.min(data.validation.length, run.evaluate.samples),
      optimizer: run.optimizer,
      schedule: run.schedule,
      steps: run.steps,
      clip: run.clipNorm,
      microBatches: run.microBatches,
      ...sharingOf(run),
      seed: run.seed,
      ranks: options.ranks && (await withRoom(options.ranks)),
      offloadFolder: nearestFolder(options.folder.path),
    });
    asked.throwIfAborted();
    const state =
      head === undefined ? await hashOfState(trainer) : await loadCheckpoint(trainer, head);
    const { step, seconds, trainLoss, isOld } = head ?? BEGINNING;
    if (options.ranks !== undefined) {
      const facts = factsOf({
        run,
        engine,
        planned: trainer.planned.step,
        program: trainer.plan,
        parallel: trainer.planned.parallel,
        identity,
        state,
        step,
      });
      await agree(options.ranks.group, facts);
    }
    if (leads) {
      // A text sample that this model cannot generate is refused now.
      const isText = data.text !== undefined && run.sample !== undefined;
      if (isText) samplingGraph(await trainedGraph(run, trainer, 1));
      await prepareFolder(options.folder, options.beginning, head?.step);
      await checkRoom(options.folder, bytesWritten(trainer, run, options.beginning));
    }
    const { notices = [] } = from ?? {};
    const before = { step, seconds, trainLoss, changes, isOld, notices };
    const held = data.validation;
    const validation = held && new Validation(held, trainer, options.ranks?.group);
    return {
      run,
      options,
      model,
      data,
      trainer,
      validation,
      before,
      identity,
      startedMs,
      leads,
      exporting,
      saver: new Saver(isSaved(before, head) ? step : undefined),
    };
  } catch (error) {
    trainer?.close();
    await data.close();
    throw error;
  }
}

/** How the step is shared is chosen from what all ranks have. */
async function withRoom(ranks: Ranks): Promise<Ranks> {
  return { ...ranks, room: ranks.room ?? (await meetRoom(ranks.group)) };
}

/** Whether the checkpoint that the run continues from says all that a new one would. */
function isSaved({ changes, isOld }: Before, head?: CheckpointHead): boolean {
  return head !== undefined && changes.length === 0 && !isOld && !head.diverged;
}

/** What data must give for a step of the model. */
export function inputsOf(model: Model): ModelInput[] {
  const ranges = fieldRanges(model);
  return model.batch.map((name) => ({
    name,
    type: typeOf(model.graph, name),
    ranges: ranges.get(name),
  }));
}

/**
 * Resolves with the result of `work`, or rejects with the signal's reason as soon as it is aborted,
 * without waiting for the work.
 */
export async function unlessAborted<Result>(
  work: Promise<Result>,
  signal: AbortSignal,
): Promise<Result> {
  signal.throwIfAborted();
  let stop: () => void = () => undefined;
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason as Error);
    signal.addEventListener("abort", stop, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

const BEGINNING = { step: 0, seconds: 0, trainLoss: Number.NaN, isOld: false };

/** Whether this is rank 0 of several workers, or the only one. */
export function isLeader({ ranks }: TrainOptions): boolean {
  return ranks === undefined || ranks.group.rank === 0;
}

export async function closeSession({ trainer, data, saver }: Session): Promise<void> {
  await saver.idle();
  trainer.close();
  await data.close();
}

/** Returns the seconds of training so far, over all parts of a resumed run. */
export function secondsOf({ options, startedMs, before }: Session): number {
  return before.seconds + (options.now() - startedMs) / 1000;
}

export function engineName({ name, version }: Device): string {
  return `${name} (${version})`;
}

export function parameterCount(model: Model): number {
  return model.parameters.reduce((sum, { type }) => sum + elementCount(type.shape), 0);
}

/** Returns the tokens of a sample of text; undefined for other data. */
export function tokensPerSample(model: Model, data: Dataset): number | undefined {
  const ids = model.batch[0];
  if (data.text === undefined || ids === undefined) return undefined;
  const { shape } = typeOf(model.graph, ids);
  return elementCount(shape.slice(1));
}
