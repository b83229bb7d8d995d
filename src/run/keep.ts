/** What of a run is kept on disk while it goes on, and what when it fails. */
import { existsSync } from "node:fs";
import { positionsOfStep, sampleOrder } from "../data/index.ts";
import { LockstepError } from "../errors.ts";
import { saveBeginning, saveCheckpoint } from "./checkpoint.ts";
import { exportModel, exportWeights } from "./export.ts";
import { collectedPath, FILES } from "./folder.ts";
import { type Session, secondsOf } from "./session.ts";

/** All workers take part in it before the one that leads saves or exports what the steps have made. */
export async function collect({ options, trainer }: Session): Promise<void> {
  await trainer.collect(collectedPath(options.folder));
}

/** Writes a checkpoint of the steps done, unless there is one. */
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

/** As `save`; what cannot be written now, because a disk is full, is told, and stays for the next time. */
export async function saveOrTell(session: Session, trainLoss: number): Promise<void> {
  try {
    await save(session, trainLoss);
  } catch (error) {
    if (!(error instanceof LockstepError) || !/^(?:DISK_FULL|IO_FAILED)$/.test(error.code))
      throw error;
    const { options, trainer } = session;
    const text = `step ${trainer.steps}: no checkpoint, the one before is kept. ${error.message}`;
    options.onEvent({ type: "notice", text });
  }
}

/**
 * A failed step has changed nothing, so the weights after the step before are kept. After a loss that is not finite they
 * do not replace a checkpoint, which is from a better time; after any other failure the run can go on from here.
 * What cannot be written now (the disk is full) leaves the older file whole.
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
    // The first failure is the one to tell of.
  }
  try {
    onEvent({ type: "failed", step, code, out, files });
  } catch {
    // It may be the sink that failed.
  }
}

/** Where other nodes hold parts of the state, and nobody can be asked for them after a failure. */
async function keepOld(session: Session, code: string): Promise<string[]> {
  const { options, identity, trainer } = session;
  const { folder, onEvent } = options;
  const isThere = existsSync(folder.file(FILES.checkpoint));
  const diverged = code === "NOT_FINITE";
  if (!isThere) await saveBeginning(folder, { identity, diverged });
  const from = isThere ? "the last checkpoint" : "the initial weights";
  onEvent({
    type: "notice",
    text: `Workers of other nodes hold parts of the state after step ${trainer.steps}, which is not saved: --resume goes on from ${from}.`,
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
      text: `To go on from ${from}, change the learning rate or the clipping in the run file, and add ${words}.`,
    });
  if (existsSync(folder.file(FILES.checkpoint))) {
    tell("the last checkpoint", "--resume --change learningRate,clipNorm");
    return [...files];
  }
  if (await isUsable(session)) {
    await save(session, trainLoss, true);
    tell(`step ${trainer.steps}`, "--resume");
  } else {
    // The last update has spoilt the weights; those before it are gone, but for the first.
    await saveBeginning(folder, { identity, diverged: true });
    tell("the initial weights", "--resume");
  }
  return [...files, FILES.checkpoint];
}

/** Whether the weights give a finite loss for samples that had one. */
async function isUsable({ run, data, trainer }: Session): Promise<boolean> {
  if (trainer.steps === 0) return true;
  const { start } = positionsOfStep(trainer.steps - 1, run.batch);
  const order = sampleOrder(data.train.length, run.seed);
  const { samples = 1 } = trainer.plan.evaluation?.sizes[0] ?? {};
  const indices = order.indices(start, start + samples);
  const sums = await trainer.evaluate(0, (into) => data.train.read(indices, into));
  return sums.every(Number.isFinite);
}
