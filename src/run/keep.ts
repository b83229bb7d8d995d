/** Keeps a run on disk: checkpoints while it runs, and what can be saved when it fails. */
import { positionsOfStep, sampleOrder } from "../data/index.ts";
import { LockstepError } from "../errors.ts";
import { said } from "./draft.ts";
import { exportModel, exportWeights } from "./export.ts";
import { checkpointsName, hasCheckpoint } from "./folder.ts";
import { saveAlone, saveBeginning, saveTogether } from "./save.ts";
import { notWritten } from "./save-notices.ts";
import type { Session } from "./session.ts";

/**
 * Writes a checkpoint of the committed steps, unless there is one already. All workers call it
 * together before they leave each other; a leader that is left then saves alone.
 */
export function save(session: Session, trainLoss: number): Promise<void> {
  return saveTogether(session, trainLoss, "now");
}

/** The codes of a place that cannot be written. */
const PLACE_FAILED = /^(?:DISK_FULL|IO_FAILED|STORE)$/;

/**
 * Begins a checkpoint of the committed steps, which is completed beside training. All workers call
 * it together. If it cannot be written it only warns, and the next checkpoint tries again.
 */
export async function saveOrTell(session: Session, trainLoss: number): Promise<void> {
  try {
    await saveTogether(session, trainLoss, "beside");
  } catch (error) {
    if (!(error instanceof LockstepError) || !PLACE_FAILED.test(error.code)) throw error;
    const { options, trainer } = session;
    options.onEvent({ type: "notice", text: notWritten(trainer.steps, error) });
  }
}

/**
 * Saves the weights after a failed step. A failed step changes nothing, so these are the weights
 * after the step before. After a loss that is not finite they do not replace a checkpoint, which is
 * from before the divergence; after any other failure the run can be resumed from them. If nothing
 * can be written (the disk is full), the older file stays whole.
 */
export async function keepLastGood(
  session: Session,
  trainLoss: number,
  error: unknown,
): Promise<void> {
  const { options, trainer } = session;
  const { folder, onEvent } = options;
  const code = error instanceof LockstepError ? error.code : "BUG";
  const [step, out] = [trainer.steps, folder.path];
  const files: string[] = [];
  try {
    if (code === "DRIFT") files.push(...(await keepVerified(session)));
    else if (!trainer.isWhole) files.push(...(await keepOld(session, code)));
    else if (code === "NOT_FINITE") files.push(...(await keepDiverged(session, trainLoss)));
    else if (step > session.before.step) {
      // Where one place for them fails, the other may not.
      const saved = saveAlone(session, said(session, trainLoss, false));
      const [isSaved] = await Promise.allSettled([saved]);
      if (isSaved.status === "fulfilled") files.push(checkpointsName(folder));
      files.push(await exportWeights(session));
    }
  } catch {
    // The first failure is the one to report.
  }
  try {
    onEvent({ type: "failed", step, code, out, files });
  } catch {
    // The sink itself may have failed.
  }
}

/** Keeps the last checkpoint when nodes that may have failed hold parts of the state. */
async function keepOld(session: Session, code: string): Promise<string[]> {
  const { options, trainer, saver, ranks } = session;
  const { folder, onEvent } = options;
  await saver.idle(ranks?.group.transport.signal);
  const isThere = await hasCheckpoint(folder);
  if (!isThere) await saveBeginning(session, code === "NOT_FINITE");
  const from = isThere ? "the last checkpoint" : "the initial weights";
  onEvent({
    type: "notice",
    text: `Workers of other nodes hold parts of the state after step ${trainer.steps}, so it is not saved: --resume continues from ${from}.`,
  });
  return isThere ? [] : [checkpointsName(folder)];
}

/** Keeps the last checkpoint, which was checked, when the state cannot be trusted any more. */
async function keepVerified(session: Session): Promise<string[]> {
  await session.saver.idle(session.ranks?.group.transport.signal);
  const { folder } = session.options;
  if (await hasCheckpoint(folder)) return [];
  await saveBeginning(session, false);
  return [checkpointsName(folder)];
}

/** Returns the files that were written. */
async function keepDiverged(session: Session, trainLoss: number): Promise<string[]> {
  const { options, trainer, saver, ranks } = session;
  const { folder, onEvent } = options;
  await saver.idle(ranks?.group.transport.signal);
  const { files } = await exportModel(session);
  const tell = (from: string, words: string) =>
    onEvent({
      type: "notice",
      text: `To continue from ${from}, change the learning rate or the clipping in the run file, and add ${words}.`,
    });
  if (await hasCheckpoint(folder)) {
    tell("the last checkpoint", "--resume --change learningRate,clipNorm");
    return [...files];
  }
  if (await isUsable(session)) {
    await saveAlone(session, said(session, trainLoss, true));
    tell(`step ${trainer.steps}`, "--resume");
  } else {
    // The last update has spoilt the weights. Of the weights before it only the initial ones can be
    // computed again.
    await saveBeginning(session, true);
    tell("the initial weights", "--resume");
  }
  return [...files, checkpointsName(folder)];
}

/** Whether the weights give a finite loss for samples that had one before. */
async function isUsable({ run, data, trainer }: Session): Promise<boolean> {
  if (trainer.steps === 0) return true;
  const { start } = positionsOfStep(trainer.steps - 1, run.batch);
  const order = sampleOrder(data.train.length, run.seed);
  const { samples = 1 } = trainer.plan.evaluation?.sizes[0] ?? {};
  const indices = order.indices(start, start + samples);
  const sums = await trainer.evaluate(0, (into) => data.train.read(indices, into));
  return sums.every(Number.isFinite);
}
