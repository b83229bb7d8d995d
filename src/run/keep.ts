/** Keeps a run on disk: checkpoints while it runs, and what can be saved when it fails. */
import { existsSync } from "node:fs";
import { positionsOfStep, sampleOrder } from "../data/index.ts";
import { LockstepError } from "../errors.ts";
import { saveBeginning, saveCheckpoint } from "./checkpoint.ts";
import { exportModel, exportWeights } from "./export.ts";
import { collectedPath, FILES } from "./folder.ts";
import { type Session, secondsOf } from "./session.ts";

/** Collects what other nodes hold. All workers take part before the leader saves or exports. */
export async function collect({ options, trainer }: Session): Promise<void> {
  await trainer.collect(collectedPath(options.folder));
}

/** Writes a checkpoint of the committed steps, unless there is one already. */
export async function save(session: Session, trainLoss: number, diverged = false): Promise<void> {
  const { options, identity, trainer } = session;
  const step = trainer.steps;
  if (session.saved === step) return;
  await collect(session);
  const progress = { step, seconds: secondsOf(session), trainLoss, identity, diverged };
  const path = await saveCheckpoint(options.folder, trainer, progress);
  session.saved = step;
  options.onEvent({ type: "checkpoint", step, path });
}

/** Saves like `save`. If the disk is full it only warns, and the next checkpoint tries again. */
export async function saveOrTell(session: Session, trainLoss: number): Promise<void> {
  try {
    await save(session, trainLoss);
  } catch (error) {
    if (!(error instanceof LockstepError) || !/^(?:DISK_FULL|IO_FAILED)$/.test(error.code))
      throw error;
    const { options, trainer } = session;
    const text = `step ${trainer.steps}: no checkpoint was written, and the one before is kept. ${error.message}`;
    options.onEvent({ type: "notice", text });
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
    if (!trainer.isWhole) files.push(...(await keepOld(session, code)));
    else if (code === "NOT_FINITE") files.push(...(await keepDiverged(session, trainLoss)));
    else if (step > session.before.step) {
      await save(session, trainLoss);
      files.push(FILES.checkpoint, await exportWeights(session));
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
  const { options, identity, trainer } = session;
  const { folder, onEvent } = options;
  const isThere = existsSync(folder.file(FILES.checkpoint));
  const diverged = code === "NOT_FINITE";
  if (!isThere) await saveBeginning(folder, { identity, diverged });
  const from = isThere ? "the last checkpoint" : "the initial weights";
  onEvent({
    type: "notice",
    text: `Workers of other nodes hold parts of the state after step ${trainer.steps}, so it is not saved: --resume continues from ${from}.`,
  });
  return isThere ? [] : [FILES.checkpoint];
}

/** Returns the files that were written. */
async function keepDiverged(session: Session, trainLoss: number): Promise<string[]> {
  const { options, trainer, identity } = session;
  const { folder, onEvent } = options;
  const { files } = await exportModel(session);
  const tell = (from: string, words: string) =>
    onEvent({
      type: "notice",
      text: `To continue from ${from}, change the learning rate or the clipping in the run file, and add ${words}.`,
    });
  if (existsSync(folder.file(FILES.checkpoint))) {
    tell("the last checkpoint", "--resume --change learningRate,clipNorm");
    return [...files];
  }
  if (await isUsable(session)) {
    await save(session, trainLoss, true);
    tell(`step ${trainer.steps}`, "--resume");
  } else {
    // The last update has spoilt the weights. Of the weights before it only the initial ones can be
    // computed again.
    await saveBeginning(folder, { identity, diverged: true });
    tell("the initial weights", "--resume");
  }
  return [...files, FILES.checkpoint];
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
