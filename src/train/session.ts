/** All that the steps of a run share, made before the first of them. */
import { type Dataset, openData } from "../data/index.ts";
import type { Engine } from "../engine/index.ts";
import { typeOf } from "../graph/index.ts";
import type { Model } from "../nn/index.ts";
import { evenRanges } from "../program/index.ts";
import type { EventSink, NetworkFacts } from "../telemetry/index.ts";
import { elementCount } from "../tensor/index.ts";
import { agree } from "./agree.ts";
import { loadCheckpoint, type Progress } from "./checkpoint.ts";
import { type ExportPlan, exportNotes, planExport } from "./export.ts";
import { factsOf } from "./facts.ts";
import { type Beginning, prepareFolder, type RunFolder } from "./folder.ts";
import type { Run } from "./run.ts";
import type { Ranks } from "./sharing.ts";
import { createTrainer, type Trainer } from "./step.ts";
import { Validation } from "./validation.ts";

export interface TrainOptions {
  readonly engine: Engine;
  readonly folder: RunFolder;
  /** Relative paths and globs of the run's data start here. */
  readonly baseDir: string;
  readonly beginning: Beginning;
  /** Asks for a clean stop: the step at hand is finished and saved. */
  readonly signal: AbortSignal;
  readonly onEvent: EventSink;
  /** Milliseconds since the process started. */
  readonly now: () => number;
  /** The other workers of the run; alone unless told. All get the same run. */
  readonly ranks?: Ranks | undefined;
}

/** `signal` here ends the loop; with several workers, on all of them after the same step. */
export interface SessionOptions extends TrainOptions {
  stopAsked(): boolean;
  stopNow(): void;
}

export interface Session {
  readonly run: Run;
  readonly options: SessionOptions;
  readonly model: Model;
  readonly data: Dataset;
  readonly trainer: Trainer;
  readonly validation: Validation | undefined;
  /** Where the run was when this session began. */
  readonly before: Progress;
  readonly startedMs: number;
  /** Whether this worker validates, writes the folder and tells what happens: one of a run does. */
  readonly leads: boolean;
  /** What is exported at the end, by the worker that leads. */
  readonly exporting: ExportPlan | undefined;
}

/** Throws the reason of `signal` when it is aborted meanwhile; nothing was written then. */
export async function openSession(run: Run, options: SessionOptions): Promise<Session> {
  const { engine, baseDir, signal, now } = options;
  const startedMs = now();
  const leads = isLeader(options);
  const microBatch = run.batch / run.microBatches;
  const model = run.model.build({ batch: microBatch, mode: "train" });
  // Everything that could fail after the last step fails here.
  const exporting = leads ? planExport(run.model, [1, microBatch]) : undefined;
  const inputs = model.batch.map((name) => ({ name, type: typeOf(model.graph, name) }));
  const data = await openData(run.data, { inputs, baseDir, batch: run.batch });
  let trainer: Trainer | undefined;
  try {
    signal.throwIfAborted();
    trainer = await createTrainer({
      engine,
      model,
      evaluation: run.model.build({ batch: microBatch, mode: "eval" }),
      optimizer: run.optimizer,
      schedule: run.schedule,
      steps: run.steps,
      clip: run.clipNorm,
      microBatches: run.microBatches,
      reproducible: run.reproducible,
      bucketBytes: run.bucketBytes,
      seed: run.seed,
      ranks: options.ranks,
    });
    signal.throwIfAborted();
    const before = await begin(run, options, trainer);
    if (options.ranks !== undefined) {
      const facts = factsOf({ run, engine, plan: trainer.plan, data, step: before.step });
      await agree(options.ranks.group, facts);
    }
    const held = data.validation;
    const validation =
      held &&
      new Validation(held, trainer, {
        batch: microBatch,
        limit: run.evaluate.samples,
        group: options.ranks?.group,
      });
    return { run, options, model, data, trainer, validation, before, startedMs, leads, exporting };
  } catch (error) {
    trainer?.close();
    await data.close();
    throw error;
  }
}

async function begin(run: Run, options: TrainOptions, trainer: Trainer): Promise<Progress> {
  const { folder, beginning } = options;
  const before =
    beginning === "resume"
      ? await loadCheckpoint(folder, run, trainer)
      : { step: 0, seconds: 0, trainLoss: Number.NaN };
  if (isLeader(options)) await prepareFolder(folder, beginning);
  return before;
}

/** Rank 0 of several workers, or the only one. */
export function isLeader({ ranks }: TrainOptions): boolean {
  return ranks === undefined || ranks.group.rank === 0;
}

export async function closeSession({ trainer, data }: Session): Promise<void> {
  trainer.close();
  await data.close();
}

/** What the user should know before the first step, and finds in the report. */
export function notesOf({ model, exporting }: Session): string[] {
  return [...model.notes, ...(exporting === undefined ? [] : exportNotes(exporting))];
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
    data: data.summary,
    engine: engineName(engine),
    workers: ranks?.group.size ?? 1,
    threads: engine.threads,
    shares: ranges.map(({ count }) => count),
    ...(ranks === undefined ? {} : networkOf(ranks, trainer)),
    steps: run.steps,
    batch: run.batch,
    firstStep: before.step,
    seconds: now() / 1000,
    notes: notesOf(session),
  });
}

/** Nothing for a run on one machine. */
function networkOf({ group }: Ranks, { plan }: Trainer): { readonly network?: NetworkFacts } {
  const machines = group.transport.machines.length;
  if (machines === 1) return {};
  const { messageUs, wireUsPerByte } = group.costs.between;
  const { buckets } = plan;
  return { network: { machines, messageUs, bytesPerSecond: 1e6 / wireUsPerByte, buckets } };
}

/** Seconds of training so far, over all parts of a resumed run. */
export function secondsOf({ options, startedMs, before }: Session): number {
  return before.seconds + (options.now() - startedMs) / 1000;
}

export function engineName({ name, version }: Engine): string {
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
