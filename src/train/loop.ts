/**
 * A run from start to end: opens the data, steps, validates, saves, reports. It decides nothing about how a step
 * is computed (`step.ts`) and shows nothing itself: what happens goes to an event sink.
 */
import { type Dataset, openData, positionsOfStep, sampleOrder } from "../data/index.ts";
import type { Engine } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import { typeOf } from "../graph/index.ts";
import type { Model } from "../nn/index.ts";
import type { EventSink, Report } from "../telemetry/index.ts";
import { elementCount } from "../tensor/index.ts";
import { baselines } from "./baselines.ts";
import { exportModel, trainedGraph } from "./export.ts";
import {
  loadCheckpoint,
  type RunFolder,
  saveCheckpoint,
  saveParameters,
  saveReport,
} from "./folder.ts";
import { generateText } from "./generate.ts";
import type { Run } from "./run.ts";
import { createTrainer, type FillBatch, type Trainer } from "./step.ts";
import { Validation } from "./validation.ts";

export interface TrainOptions {
  readonly engine: Engine;
  readonly folder: RunFolder;
  /** Relative paths and globs of the run's data start here. */
  readonly baseDir: string;
  /** Go on from the folder's checkpoint. */
  readonly resume: boolean;
  /** Asks for a clean stop: the step at hand is finished and saved. */
  readonly signal: AbortSignal;
  readonly onEvent: EventSink;
  /** Milliseconds since the process started. */
  readonly now: () => number;
}

export interface TrainResult {
  /** Undefined when the run was stopped before its end. */
  readonly report: Report | undefined;
}

/** Throws what its parts throw; whatever was committed before is in the folder then. */
export async function train(run: Run, options: TrainOptions): Promise<TrainResult> {
  const session = await openSession(run, options);
  try {
    return await runSteps(session);
  } catch (error) {
    await keepLastGood(session, error);
    throw error;
  } finally {
    session.trainer.close();
    await session.data.close();
  }
}

/** What the steps of a run share. */
interface Session {
  readonly run: Run;
  readonly options: TrainOptions;
  readonly model: Model;
  readonly data: Dataset;
  readonly trainer: Trainer;
  readonly validation: Validation | undefined;
  readonly firstStep: number;
  /** Seconds of earlier parts of a resumed run. */
  readonly secondsBefore: number;
  readonly startedMs: number;
}

async function openSession(run: Run, options: TrainOptions): Promise<Session> {
  const { engine, folder, onEvent, now } = options;
  const startedMs = now();
  const microBatch = run.batch / run.microBatches;
  const model = run.model.build({ batch: microBatch, mode: "train" });
  const inputs = model.batch.map((name) => ({ name, type: typeOf(model.graph, name) }));
  const data = await openData(run.data, { inputs, baseDir: options.baseDir, batch: run.batch });
  const held = data.validation;
  const trainer = await createTrainer({
    engine,
    model,
    evaluation: run.model.build({ batch: microBatch, mode: "eval" }),
    optimizer: run.optimizer,
    schedule: run.schedule,
    steps: run.steps,
    clip: run.clipNorm,
    microBatches: run.microBatches,
    seed: run.seed,
  });
  const resumed = options.resume ? await loadCheckpoint(folder, run, trainer) : undefined;
  const firstStep = resumed?.step ?? 0;
  const session: Session = {
    run,
    options,
    model,
    data,
    trainer,
    validation: held && new Validation(held, trainer, microBatch, run.evaluate.samples),
    firstStep,
    secondsBefore: resumed?.seconds ?? 0,
    startedMs,
  };
  onEvent({
    type: "started",
    name: run.name,
    out: folder.path,
    model: model.name,
    parameters: parameterCount(model),
    data: data.summary,
    engine: `${engine.name} (${engine.version})`,
    threads: engine.threads,
    steps: run.steps,
    batch: run.batch,
    firstStep,
    seconds: now() / 1000,
  });
  return session;
}

async function runSteps(session: Session): Promise<TrainResult> {
  const { run, options, data, trainer, validation, firstStep } = session;
  const { onEvent, signal, now } = options;
  const order = sampleOrder(data.train.length, run.seed);
  const tokens = tokensPerSample(session.model, data);
  const startMs = now();
  let trainLoss = Number.NaN;
  let stepMs = startMs;
  for (let step = firstStep; step < run.steps; step++) {
    if (signal.aborted) return stopped(session, step);
    const positions = positionsOfStep(step, run.batch);
    const indices = order.indices(positions.start, positions.end);
    const fill: FillBatch = (into) => data.train.read(indices, into);
    const result = await trainer.step({ positions, fill });
    trainLoss = result.loss;
    const done = step + 1;
    const at = now();
    const samplesPerSecond = (1000 * run.batch) / (at - stepMs);
    stepMs = at;
    onEvent({
      type: "step",
      step: done,
      steps: run.steps,
      loss: result.loss,
      gradientNorm: result.gradientNorm,
      learningRate: result.learningRate,
      samplesPerSecond,
      tokensPerSecond: tokens && samplesPerSecond * tokens,
      secondsLeft: (((at - startMs) / (done - firstStep)) * (run.steps - done)) / 1000,
    });
    const isLast = done === run.steps;
    if (validation !== undefined && (isLast || done % run.evaluate.every === 0)) {
      onEvent({ type: "evaluated", step: done, loss: await validation.loss() });
    }
    if (!isLast && done % run.checkpointEvery === 0) await save(session, done);
    if (done % run.evaluate.every === 0) stepMs = now();
  }
  return finish(session, trainLoss);
}

async function save(session: Session, step: number): Promise<void> {
  const { options, run, trainer } = session;
  const path = await saveCheckpoint(options.folder, {
    run,
    trainer,
    step,
    seconds: secondsOf(session),
  });
  options.onEvent({ type: "checkpoint", step, path });
}

async function stopped(session: Session, step: number): Promise<TrainResult> {
  const { options } = session;
  await save(session, step);
  await saveParameters(options.folder, session.trainer);
  const reason = options.signal.reason;
  options.onEvent({
    type: "stopped",
    step,
    reason: typeof reason === "string" ? reason : "Stopped",
    out: options.folder.path,
  });
  return { report: undefined };
}

async function finish(session: Session, trainLoss: number): Promise<TrainResult> {
  const { run, options, model, data, trainer, validation } = session;
  const { folder, engine, onEvent } = options;
  await save(session, run.steps);
  const validationLoss = await validation?.loss();
  const seconds = secondsOf(session);
  const samples = run.steps * run.batch;
  const tokens = tokensPerSample(model, data);
  const weightsSha256 = await saveParameters(folder, trainer);
  const files = await exportModel(folder, run, trainer, data);
  const report: Report = {
    name: run.name,
    steps: run.steps,
    samples,
    trainLoss,
    validationLoss,
    tokensPerSecond: tokens && (samples * tokens) / seconds,
    samplesPerSecond: samples / seconds,
    parameters: parameterCount(model),
    seconds,
    seed: run.seed,
    weightsSha256,
    engine: `${engine.name} (${engine.version})`,
    threads: engine.threads,
    batch: run.batch,
    bitsPerByte: await baselines(data, validationLoss),
    sample: await sampleText(session),
  };
  await saveReport(folder, report);
  onEvent({ type: "finished", report, files: [...files, "report.json"], out: folder.path });
  return { report };
}

/** A sample of a model of text; undefined for other models. */
async function sampleText({ run, options, data, trainer }: Session): Promise<string | undefined> {
  if (data.text === undefined || run.sample === undefined) return undefined;
  const { prompt = "", tokens = 300 } = run.sample;
  const pieces: string[] = [];
  for await (const piece of generateText({
    engine: options.engine,
    graph: trainedGraph(run, trainer, 1),
    tokenizer: data.text.tokenizer,
    prompt,
    tokens,
    seed: run.seed,
  })) {
    pieces.push(piece);
  }
  return pieces.join("");
}

/** A run that fails keeps its last committed weights: a failed step has changed nothing. */
async function keepLastGood(session: Session, error: unknown): Promise<void> {
  if (!(error instanceof LockstepError) || error.code !== "NOT_FINITE") return;
  await saveParameters(session.options.folder, session.trainer);
}

function secondsOf({ options, startedMs, secondsBefore }: Session): number {
  return secondsBefore + (options.now() - startedMs) / 1000;
}

export function parameterCount(model: Model): number {
  return model.parameters.reduce((sum, { type }) => sum + elementCount(type.shape), 0);
}

/** Tokens of a sample of text; undefined for other data. */
function tokensPerSample(model: Model, data: Dataset): number | undefined {
  const ids = model.batch[0];
  if (data.text === undefined || ids === undefined) return undefined;
  const [batch = 1] = typeOf(model.graph, ids).shape;
  return elementCount(typeOf(model.graph, ids).shape) / batch;
}
