/**
 * A run from start to end: opens the data, steps, validates, saves, reports. It decides nothing about how a step
 * is computed (`step.ts`) and shows nothing itself: what happens goes to an event sink.
 */
import { positionsOfStep, sampleOrder } from "../data/index.ts";
import { LockstepError } from "../errors.ts";
import type { EventSink, Report } from "../telemetry/index.ts";
import { readProgress, saveCheckpoint } from "./checkpoint.ts";
import { exportModel, exportWeights } from "./export.ts";
import { finish } from "./finish.ts";
import { checkBeginning, FILES, isFinished } from "./folder.ts";
import { lockFolder } from "./lock.ts";
import type { Run } from "./run.ts";
import {
  announce,
  closeSession,
  isLeader,
  openSession,
  type Session,
  type SessionOptions,
  secondsOf,
  type TrainOptions,
  tokensPerSample,
} from "./session.ts";
import type { FillBatch } from "./step.ts";

export type TrainResult =
  | { readonly outcome: "finished"; readonly report: Report }
  /** By its signal; the folder holds what is needed to go on. */
  | { readonly outcome: "stopped" }
  /** As one of several workers that does not lead: all files are the leader's. */
  | { readonly outcome: "followed" }
  /** All steps were done before. */
  | { readonly outcome: "complete" };

/** Throws what its parts throw; whatever was committed before is in the folder then. */
export async function train(run: Run, given: TrainOptions): Promise<TrainResult> {
  const options = stoppingTogether(given);
  const lock = isLeader(options) ? await lockFolder(options.folder) : undefined;
  try {
    return await trainInFolder(run, options);
  } finally {
    lock?.release();
  }
}

async function trainInFolder(run: Run, options: SessionOptions): Promise<TrainResult> {
  const { folder, beginning, signal, onEvent } = options;
  if (isLeader(options)) checkBeginning(folder, beginning);
  if (beginning === "resume") {
    const { step } = await readProgress(folder, run);
    if (step > run.steps || (step === run.steps && isFinished(folder))) {
      onEvent({ type: "complete", step, steps: run.steps, out: folder.path });
      return { outcome: "complete" };
    }
  }
  let session: Session;
  try {
    session = await openSession(run, options);
  } catch (error) {
    if (!isStop(error, signal)) throw error;
    const step = 0;
    onEvent({ type: "stopped", step, steps: run.steps, out: folder.path, files: [] });
    return { outcome: "stopped" };
  }
  try {
    return await runSession(session);
  } finally {
    await closeSession(session);
  }
}

async function runSession(session: Session): Promise<TrainResult> {
  const last = { trainLoss: session.before.trainLoss };
  try {
    if (session.leads) announce(session);
    const validationLoss = await runSteps(session, last);
    const seconds = secondsOf(session);
    if (!session.leads) return { outcome: "followed" };
    await save(session, last.trainLoss);
    const report = await finish(session, { trainLoss: last.trainLoss, validationLoss, seconds });
    return { outcome: "finished", report };
  } catch (error) {
    if (!session.leads) {
      if (isStop(error, session.options.signal)) return { outcome: "followed" };
      throw error;
    }
    if (!isStop(error, session.options.signal)) {
      await keepLastGood(session, last.trainLoss, error);
      throw error;
    }
    await stop(session, last.trainLoss);
    return { outcome: "stopped" };
  }
}

/** Several workers stop after the same step: a wish to stop travels with the gradients. */
function stoppingTogether(options: TrainOptions): SessionOptions {
  const { ranks, signal } = options;
  if (ranks === undefined) {
    return { ...options, stopAsked: () => signal.aborted, stopNow: () => undefined };
  }
  const together = new AbortController();
  return {
    ...options,
    signal: together.signal,
    stopAsked: () => signal.aborted,
    stopNow: () => together.abort(new Error("A stop was asked for.")),
  };
}

function isStop(error: unknown, signal: AbortSignal): boolean {
  return signal.aborted && error === signal.reason;
}

/** Returns the validation loss after the last step. Throws the signal's reason when a stop is asked for. */
async function runSteps(
  session: Session,
  last: { trainLoss: number },
): Promise<number | undefined> {
  const { run, options, data, trainer, validation } = session;
  const { signal } = options;
  const tell: EventSink = session.leads ? options.onEvent : () => undefined;
  const order = sampleOrder(data.train.length, run.seed);
  const measure = stopwatch(session);
  let validationLoss: number | undefined;
  for (let step = trainer.steps; step < run.steps; step++) {
    signal.throwIfAborted();
    const positions = positionsOfStep(step, run.batch);
    const own = trainer.ownPositions(positions);
    const indices = order.indices(own.start, own.end);
    const fill: FillBatch = (into) => data.train.read(indices, into);
    const stop = options.stopAsked();
    const result = await trainer.step({ positions, fill, stop });
    const { loss, gradientNorm, learningRate } = result;
    if (result.stop) options.stopNow();
    last.trainLoss = loss;
    const [done, steps] = [step + 1, run.steps];
    tell({
      type: "step",
      step: done,
      steps,
      loss,
      gradientNorm,
      learningRate,
      ...measure(done),
    });
    if (result.shared !== undefined) tell({ type: "shared", step: done, reason: result.shared });
    if (validation !== undefined && done % run.evaluate.every === 0 && done < steps) {
      tell({ type: "evaluated", step: done, loss: await validation.loss() });
    }
    if (session.leads && done % run.checkpointEvery === 0 && done < steps) {
      await save(session, loss);
    }
    measure.restart();
  }
  if (validation !== undefined) {
    validationLoss = await validation.loss();
    tell({ type: "evaluated", step: run.steps, loss: validationLoss });
  }
  return validationLoss;
}

interface Speed {
  readonly samplesPerSecond: number;
  readonly tokensPerSecond: number | undefined;
  readonly secondsLeft: number;
}

/** Measures steps alone; the time left also counts validation and checkpoints so far. */
function stopwatch({ run, options, model, data, trainer }: Session): {
  (done: number): Speed;
  restart(): void;
} {
  const { now } = options;
  const tokens = tokensPerSample(model, data);
  const [firstStep, beganMs] = [trainer.steps, now()];
  let stepMs = beganMs;
  const measure = (done: number): Speed => {
    const at = now();
    const samplesPerSecond = (1000 * run.batch) / Math.max(at - stepMs, 1e-3);
    return {
      samplesPerSecond,
      tokensPerSecond: tokens && samplesPerSecond * tokens,
      secondsLeft: (((at - beganMs) / (done - firstStep)) * (run.steps - done)) / 1000,
    };
  };
  const restart = () => {
    stepMs = now();
  };
  return Object.assign(measure, { restart });
}

async function save(session: Session, trainLoss: number): Promise<void> {
  const { options, run, trainer } = session;
  const step = trainer.steps;
  const progress = { step, seconds: secondsOf(session), trainLoss };
  const path = await saveCheckpoint(options.folder, run, trainer, progress);
  options.onEvent({ type: "checkpoint", step, path });
}

/** Leaves a folder that can be gone on with, and sampled from. */
async function stop(session: Session, trainLoss: number): Promise<void> {
  const { options, run, trainer } = session;
  const { folder, onEvent } = options;
  const [step, steps, out] = [trainer.steps, run.steps, folder.path];
  await save(session, trainLoss);
  const { files } = await exportModel(session);
  onEvent({
    type: "stopped",
    step,
    steps,
    out,
    files: [...files, FILES.checkpoint, FILES.metrics],
  });
}

/**
 * A failed step has changed nothing, so the weights after the step before are kept. After a loss that is not finite they
 * do not replace the checkpoint, which is from a better time; after any other failure the run can go on from here.
 * What cannot be written now (the disk is full) leaves the older file whole.
 */
async function keepLastGood(session: Session, trainLoss: number, error: unknown): Promise<void> {
  const { options, trainer } = session;
  const { folder, onEvent } = options;
  const code = error instanceof LockstepError ? error.code : "BUG";
  const [step, out] = [trainer.steps, folder.path];
  const files: string[] = [];
  try {
    if (code === "NOT_FINITE") {
      files.push(...(await exportModel(session)).files);
    } else if (step > session.before.step) {
      await save(session, trainLoss);
      files.push(FILES.checkpoint, await exportWeights(session));
    }
  } catch {
    // The first failure is the one to tell of.
  }
  try {
    onEvent({ type: "failed", step, code, out, files });
  } catch {
    // It may be the sink that failed.
  }
}
