/** All that the steps of a run share, made before the first of them. */
import { type Dataset, type ModelInput, openData } from "../data/index.ts";
import type { Device } from "../engine/index.ts";
import { typeOf } from "../graph/index.ts";
import type { Model } from "../nn/index.ts";
import { evenRanges } from "../program/index.ts";
import type { EventSink, NetworkFacts } from "../telemetry/index.ts";
import { elementCount } from "../tensor/index.ts";
import { createTrainer, meetRoom, type Ranks, sharingOf, type Trainer } from "../train/index.ts";
import { agree } from "./agree.ts";
import {
  bytesWritten,
  type CheckpointHead,
  checkIdentity,
  hashOfState,
  loadCheckpoint,
  type Progress,
} from "./checkpoint.ts";
import { type ExportPlan, exportNotes, planExport, trainedGraph } from "./export.ts";
import { factsOf } from "./facts.ts";
import { fieldRanges } from "./field-ranges.ts";
import { checkHolds, type Fingerprint, fingerprintOf } from "./fingerprint.ts";
import { type Beginning, checkRoom, prepareFolder, type RunFolder } from "./folder.ts";
import { samplingGraph } from "./generate.ts";
import { type Change, type Changeable, type Identity, identityOf } from "./identity.ts";
import type { Run } from "./run.ts";
import { Validation } from "./validation.ts";

export interface TrainOptions {
  readonly engine: Device;
  readonly folder: RunFolder;
  /** Relative paths and globs of the run's data start here. */
  readonly baseDir: string;
  /** Folders below which the run's data must lie, links followed; anywhere if undefined. */
  readonly roots?: readonly string[] | undefined;
  /** What the data must hold; anything if undefined. */
  readonly holds?: Fingerprint | undefined;
  readonly beginning: Beginning;
  /** What may be another than before in a run that goes on. */
  readonly changes?: readonly Changeable[] | undefined;
  /** Asks for a clean stop: the step at hand is finished and saved. */
  readonly signal: AbortSignal;
  readonly onEvent: EventSink;
  /** Milliseconds since the process started. */
  readonly now: () => number;
  /** The other workers of the run, which all get the same run. Default: none. */
  readonly ranks?: Ranks | undefined;
}

/** `signal` here ends the loop; with several workers, on all of them after the same step. */
export interface SessionOptions extends TrainOptions {
  /** Of a stop that was asked for, on this worker. Before the first step nothing is lost by heeding it at once. */
  readonly asked: AbortSignal;
  stopNow(): void;
  /** From here on nothing is done together: a stop that is asked for is made at once. */
  goOnAlone(): void;
}

export interface Session {
  readonly run: Run;
  readonly options: SessionOptions;
  readonly model: Model;
  readonly data: Dataset;
  readonly trainer: Trainer;
  readonly validation: Validation | undefined;
  /** Where the run was when this session began. */
  readonly before: Before;
  readonly identity: Identity;
  readonly startedMs: number;
  /** Whether this worker validates, writes the folder and tells what happens: one of a run does. */
  readonly leads: boolean;
  /** The step of the last checkpoint that was written. */
  saved: number | undefined;
  /** What is exported at the end, by the worker that leads. */
  readonly exporting: ExportPlan | undefined;
}

/** Where a run goes on. */
export interface Before extends Progress {
  /** What is another since then. */
  readonly changes: readonly Change[];
  /** Whether nothing tells that the checkpoint is whole and of this very run. */
  readonly isOld: boolean;
}

/**
 * `head` is of the checkpoint that the run goes on from, if it does.
 * Throws the reason of `asked` when it is aborted meanwhile; nothing was written then.
 */
export async function openSession(
  run: Run,
  options: SessionOptions,
  head?: CheckpointHead,
): Promise<Session> {
  const { engine, baseDir, roots, asked, now } = options;
  const startedMs = now();
  const leads = isLeader(options);
  const microBatch = run.batch / run.microBatches;
  const model = run.model.build({ batch: microBatch, mode: "train" });
  // Everything that could fail after the last step fails here.
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
    const changes =
      head === undefined ? [] : checkIdentity(options.folder, head, identity, options.changes);
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
    });
    asked.throwIfAborted();
    const state =
      head === undefined
        ? await hashOfState(trainer)
        : await loadCheckpoint(options.folder, trainer, head);
    const { step, seconds, trainLoss, hashes } = head ?? BEGINNING;
    if (options.ranks !== undefined) {
      const facts = factsOf({
        run,
        engine,
        planned: trainer.stepGraph,
        program: trainer.plan,
        parallel: trainer.parallel,
        identity,
        state,
        step,
      });
      await agree(options.ranks.group, facts);
    }
    if (leads) {
      // Text that is asked for at the end can be had from this model, or it is refused now.
      const isText = data.text !== undefined && run.sample !== undefined;
      if (isText) samplingGraph(await trainedGraph(run, trainer, 1));
      await prepareFolder(options.folder, options.beginning);
      await checkRoom(options.folder, bytesWritten(trainer, options.beginning));
    }
    const isOld = head !== undefined && hashes === undefined;
    const before = { step, seconds, trainLoss, changes, isOld };
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
      saved: undefined,
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

/** What data must give for a step of the model. */
export function inputsOf(model: Model): ModelInput[] {
  const ranges = fieldRanges(model);
  return model.batch.map((name) => ({
    name,
    type: typeOf(model.graph, name),
    ranges: ranges.get(name),
  }));
}

/** What `work` gives, or the signal's reason as soon as it is aborted; the work is not waited for then. */
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

const BEGINNING = { step: 0, seconds: 0, trainLoss: Number.NaN, hashes: undefined };

/** Rank 0 of several workers, or the only one. */
export function isLeader({ ranks }: TrainOptions): boolean {
  return ranks === undefined || ranks.group.rank === 0;
}

export async function closeSession({ trainer, data }: Session): Promise<void> {
  trainer.close();
  await data.close();
}

/** What the user should know before the first step, and finds in the report. */
export function notesOf(session: Session): string[] {
  const { model, exporting } = session;
  return [
    ...model.notes,
    ...(exporting === undefined ? [] : exportNotes(exporting)),
    ...idleNote(session),
    ...validationNote(session),
  ];
}

/** A micro-batch of several keeps to one thread. */
function idleNote({ run: { microBatches }, options: { engine, ranks } }: Session): string[] {
  const { threads } = engine;
  if (ranks !== undefined || microBatches === 1 || threads <= microBatches) return [];
  return [
    `${microBatches} of ${threads} threads compute gradients, each one of ${microBatches} micro-batches. State microBatches in the run to use more.`,
  ];
}

function validationNote({ trainer, validation }: Session): string[] {
  const why = trainer.plan.evaluation?.measures[0]?.meanOfBatches;
  if (validation === undefined || why === undefined) return [];
  return [`The validation loss is a mean over batches, for ${why}.`];
}

export function announce(session: Session): void {
  const { run, options, model, data, trainer, before } = session;
  const { engine, folder, onEvent, now, ranks } = options;
  const ranges = ranks?.ranges ?? evenRanges(run.microBatches, ranks?.group.size ?? 1);
  onEvent({
    type: "started",
    name: run.name,
    out: folder.path,
    model: model.name,
    parameters: parameterCount(model),
    ...(model.trains === undefined ? {} : { trains: model.trains }),
    data: data.summary,
    engine: engineName(engine),
    workers: ranks?.group.size ?? 1,
    threads: engine.threads,
    ...sharingTold(trainer, ranks),
    shares: ranges.map(({ count }) => count),
    ...(ranks === undefined ? {} : networkOf(ranks, trainer)),
    steps: run.steps,
    batch: run.batch,
    firstStep: before.step,
    seconds: now() / 1000,
    notes: notesOf(session),
  });
  const { step, changes, isOld } = before;
  if (changes.length > 0) onEvent({ type: "changed", step, changes });
  if (!isOld) return;
  onEvent({
    type: "notice",
    text:
      "The checkpoint is of an older version: nothing tells whether it is whole, and whether data, " +
      "model and options are still those that it was begun with.",
  });
}

function sharingTold({ parallel }: Trainer, ranks?: Ranks): { readonly sharing?: string } {
  const isPlain = ranks === undefined && parallel.strategies.length === 0;
  return isPlain ? {} : { sharing: parallel.reason };
}

/** Nothing for a run on one node. */
function networkOf({ group }: Ranks, { plan }: Trainer): { readonly network?: NetworkFacts } {
  const machines = group.transport.nodes.length;
  if (machines === 1) return {};
  const { messageUs, wireUsPerByte } = group.costs;
  const { buckets } = plan;
  return { network: { machines, messageUs, bytesPerSecond: 1e6 / wireUsPerByte, buckets } };
}

/** Seconds of training so far, over all parts of a resumed run. */
export function secondsOf({ options, startedMs, before }: Session): number {
  return before.seconds + (options.now() - startedMs) / 1000;
}

export function engineName({ name, version }: Device): string {
  return `${name} (${version})`;
}

export function parameterCount(model: Model): number {
  return model.parameters.reduce((sum, { type }) => sum + elementCount(type.shape), 0);
}

/** Tokens of a sample of text; undefined for other data. */
export function tokensPerSample(model: Model, data: Dataset): number | undefined {
  const ids = model.batch[0];
  if (data.text === undefined || ids === undefined) return undefined;
  const { shape } = typeOf(model.graph, ids);
  return elementCount(shape.slice(1));
}
