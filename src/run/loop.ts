/**
 * A run from start to end: opens the data, steps, validates, saves, reports. It does not decide how
 * a step is computed (`train/step.ts`) and shows nothing itself: it sends events to a sink.
 */
import { existsSync } from "node:fs";
import { positionsOfStep, sampleOrder } from "../data/index.ts";
import { LockstepError } from "../errors.ts";
import type { EventSink, Report, RunEvent } from "../telemetry/index.ts";
import type { CommittedStep, FillBatch, StepResult } from "../train/index.ts";
import { announce } from "./announce.ts";
import { checkIdentity, readCheckpointHead } from "./checkpoint.ts";
import { exportModel } from "./export.ts";
import { finish } from "./finish.ts";
import { checkBeginning, checkpointsName, FILES, isFinished } from "./folder.ts";
import { enterNext, excludeSlow, type Moved, unlessLost } from "./generations.ts";
import { statedIdentity } from "./identity.ts";
import { keepLastGood, save, saveOrTell } from "./keep.ts";
import { type FolderLock, lockFolder } from "./lock.ts";
import { settleMicroBatches } from "./micro-batches.ts";
import type { Run } from "./run.ts";
import { beginEntry, enterCommitted } from "./samples.ts";
import { collectParts } from "./save.ts";
import {
  closeSession,
  isLeader,
  openSession,
  type Session,
  type SessionOptions,
  secondsOf,
  type TrainOptions,
} from "./session.ts";
import { stopwatch } from "./stopwatch.ts";
import type { Validated } from "./validation.ts";

export type TrainResult =
  | { readonly outcome: "finished"; readonly report: Report }
  /** The signal stopped it; the folder holds what a resumed run needs. */
  | { readonly outcome: "stopped" }
  /** The run of a worker that does not lead; the leader writes all files. */
  | { readonly outcome: "followed" }
  /** All steps had been committed before. */
  | { readonly outcome: "complete" };

/**
 * Runs all steps. After a failure the folder holds what was committed before.
 * @throws what its parts throw
 */
export async function train(run: Run, given: TrainOptions): Promise<TrainResult> {
  const options = stoppingTogether(given);
  let lock: FolderLock | undefined;
  try {
    lock = isLeader(options) ? await claim(options) : undefined;
    const session = await begin(run, options, lock);
    if (session === "complete") return { outcome: "complete" };
    try {
      return await runSession(session);
    } finally {
      lock = session.lock;
      await closeSession(session);
    }
  } catch (error) {
    if (!(error instanceof NotBegun)) throw error;
    const { steps } = run;
    options.onEvent({ type: "stopped", step: 0, steps, out: options.folder.path, files: [] });
    return { outcome: "stopped" };
  } finally {
    lock?.release();
  }
}

/**
 * Locks the folder. Where workers come and go, whoever leads the first generation does that, and
 * here it is only seen whether another run has it.
 */
async function claim(options: SessionOptions): Promise<FolderLock | undefined> {
  const { folder, members, asked: signal, onEvent } = options;
  const how = { signal, onWatch: (text: string) => onEvent({ type: "notice", text }) };
  if (members === undefined) return lockFolder(folder, how);
  if (existsSync(folder.path)) (await lockFolder(folder, how)).release();
  return undefined;
}

/** Thrown when a stop is asked for before the first step. */
class NotBegun extends Error {}

async function begin(
  given: Run,
  options: SessionOptions,
  lock: FolderLock | undefined,
): Promise<Session | "complete"> {
  const { folder, beginning, asked, onEvent } = options;
  try {
    if (isLeader(options)) await checkBeginning(folder, beginning);
    const head = beginning === "resume" ? await readCheckpointHead(folder) : undefined;
    const run = settleMicroBatches(given, head?.identity["microBatches"]);
    if (head !== undefined) {
      const { step } = head;
      if (step > run.steps || (step === run.steps && isFinished(folder))) {
        onEvent({ type: "complete", step, steps: run.steps, out: folder.path });
        return "complete";
      }
      // What the run file and the command line say is checked before any data is read.
      checkIdentity(head, statedIdentity(run), options.changes);
    }
    return await openSession(run, options, lock, head);
  } catch (error) {
    // When workers stop before all have met, the waiting ones report missing peers.
    const isConsequence =
      error instanceof LockstepError && /^(PEER_LOST|ABORTED)$/.test(error.code);
    if (asked.aborted && (isStop(error, asked) || isConsequence)) throw new NotBegun();
    throw error;
  }
}

async function runSession(session: Session): Promise<TrainResult> {
  const last = { trainLoss: session.before.trainLoss };
  try {
    if (session.leads) announce(session);
    const validationLoss = await runSteps(session, last);
    const seconds = secondsOf(session);
    await save(session, last.trainLoss);
    if (!session.leads) return { outcome: "followed" };
    const report = await finish(session, { trainLoss: last.trainLoss, validationLoss, seconds });
    return { outcome: "finished", report };
  } catch (error) {
    if (!session.leads) {
      if (!isStop(error, session.options.signal)) throw error;
      await save(session, last.trainLoss);
      return { outcome: "followed" };
    }
    if (!isStop(error, session.options.signal)) {
      await keepLastGood(session, last.trainLoss, error);
      throw error;
    }
    await stop(session, last.trainLoss);
    return { outcome: "stopped" };
  }
}

/** Lets several workers stop after the same step: a wish to stop travels with the gradients. */
function stoppingTogether(options: TrainOptions): SessionOptions {
  const { ranks, members, signal: asked } = options;
  const nothing = () => undefined;
  if (ranks === undefined && members === undefined)
    return { ...options, asked, stopNow: nothing, goOnAlone: nothing };
  const together = new AbortController();
  const stopNow = () => together.abort(new Error("A stop was asked for."));
  return {
    ...options,
    signal: together.signal,
    asked,
    stopNow,
    goOnAlone: () => {
      if (asked.aborted) stopNow();
      else asked.addEventListener("abort", stopNow, { once: true });
    },
  };
}

function isStop(error: unknown, signal: AbortSignal): boolean {
  return signal.aborted && error === signal.reason;
}

/**
 * Returns the validation loss after the last step.
 * @throws the signal's reason when a stop is asked for
 */
async function runSteps(
  session: Session,
  last: { trainLoss: number },
): Promise<number | undefined> {
  const { run, options, trainer } = session;
  const { signal, members } = options;
  const tell: EventSink = (event) => {
    if (session.leads) options.onEvent(event);
  };
  const measure = stopwatch(session);
  const committed = (step: CommittedStep | undefined) => {
    if (step === undefined) return;
    session.last = step;
    const { loss, gradientNorm, learningRate } = step;
    const [done, { steps }] = [step.step + 1, run];
    last.trainLoss = loss;
    tell({ type: "step", step: done, steps, loss, gradientNorm, learningRate, ...measure(done) });
    if (step.isEmpty) tell({ type: "notice", text: nothingCounts(done) });
    measure.restart();
  };
  // A newcomer does what the others do after a change of generation.
  if (session.hasMoved) await rest(session, last, tell, committed);
  while (trainer.steps < run.steps) {
    signal.throwIfAborted();
    const step = trainer.steps;
    const result = await unlessLost(
      session,
      () => makeStep(session, step),
      (found) => {
        committed(found);
        if (trainer.steps === step) tell({ type: "repeated", step: step + 1 });
      },
    );
    if (result !== undefined) {
      if (result.stop) options.stopNow();
      committed(result);
      if (result.shared !== undefined) {
        tell({ type: "shared", step: trainer.steps, reason: result.shared });
      }
      excludeSlow(session, result);
    }
    await rest(session, last, tell, committed);
    if (result?.regroup === true && members !== undefined && !signal.aborted) {
      committed(await enterNext(session));
      await rest(session, last, tell, committed);
    }
    measure.restart();
  }
  for (;;) {
    const done = await unlessLost(session, () => validateAtEnd(session, tell), committed);
    if (done !== undefined) return done.loss;
  }
}

/**
 * What all workers do between two steps, and after each change of generation: a worker may be lost
 * when some have done it already and others have not, so all of them do it again.
 */
async function rest(
  session: Session,
  last: { readonly trainLoss: number },
  tell: EventSink,
  moved: Moved,
): Promise<void> {
  for (;;) {
    const done = await unlessLost(session, () => between(session, last, tell), moved);
    if (done !== undefined) return;
  }
}

async function makeStep(session: Session, step: number): Promise<StepResult> {
  const { run, options, data, trainer } = session;
  const positions = positionsOfStep(step, run.batch);
  const own = trainer.ownPositions(positions);
  await beginEntry(session, step, own);
  const order = sampleOrder(data.train.length, run.seed);
  const indices = own.flatMap(({ start, end }) => order.indices(start, end));
  const fill: FillBatch = (into) => data.train.read(indices, into);
  const regroup = options.members?.isWanted() ?? false;
  const made = await trainer.step({ positions, fill, stop: options.asked.aborted, regroup });
  enterCommitted(session);
  return made;
}

/** Validates and saves after a step, where that is due. */
async function between(
  session: Session,
  last: { readonly trainLoss: number },
  tell: EventSink,
): Promise<"done"> {
  const { run, options, trainer, validation } = session;
  const done = trainer.steps;
  if (done >= run.steps || done === 0) return "done";
  if (validation !== undefined && done % run.evaluate.every === 0) {
    const validated = await validation.run(session.ranks?.group, options.asked);
    if (validated !== undefined && session.validated !== done) tell(evaluated(done, validated));
    session.validated = done;
  }
  if (done % run.checkpointEvery === 0) {
    await trainer.verify();
    await saveOrTell(session, last.trainLoss);
  }
  return "done";
}

/** Returns the loss of the validation after the last step, if there is one. */
async function validateAtEnd(
  session: Session,
  tell: EventSink,
): Promise<{ readonly loss: number | undefined }> {
  const { run, options, ranks, trainer, validation } = session;
  await trainer.verify();
  const validated = await validation?.run(ranks?.group, options.asked);
  // From here on the leader needs nobody, so that none can be lost.
  if (options.members !== undefined) await collectParts(session);
  if (session.leads) options.goOnAlone();
  if (validation !== undefined) options.signal.throwIfAborted();
  if (validated !== undefined) tell(evaluated(run.steps, validated));
  return { loss: validated?.loss };
}

function nothingCounts(step: number): string {
  return `Step ${step}: no label of the batch counts for the loss, so the step changed nothing.`;
}

function evaluated(step: number, { loss, measures }: Validated): RunEvent {
  if (loss === undefined) {
    const text = `Step ${step}: no label of the held-out samples counts, so there is no validation loss.`;
    return { type: "notice", text };
  }
  const others = Object.keys(measures).length === 0 ? {} : { measures };
  return { type: "evaluated", step, loss, ...others };
}

/** Leaves a folder that can be resumed and sampled from. */
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
    files: [...files, checkpointsName(folder), FILES.metrics],
  });
}
