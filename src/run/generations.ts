/** A worker of a run goes from one generation of workers to the next. */
import { assert } from "../errors.ts";
import type { CommittedStep, Ranks, StepResult } from "../train/index.ts";
import { agreeOrLose } from "./agree.ts";
import { MOVED, withRoom } from "./enter.ts";
import { planExport } from "./export.ts";
import { factsHere } from "./facts.ts";
import { isMarked, markFolder, nearestFolder, prepareFolder } from "./folder.ts";
import { holdPlace } from "./hold.ts";
import { type FolderLock, lockForLeader } from "./lock.ts";
import { isLoss, isTooFew, type Members } from "./members.ts";
import { enterCommitted, hasStoodBy, shareLedger } from "./samples.ts";
import type { Session } from "./session.ts";
import { tellWeights } from "./weights-place.ts";

/**
 * Leaves the group of ranks and enters the next generation. Tries again while generations fail.
 * @param lost the error that says that the group has failed; undefined for an orderly change
 * @returns the last committed step, if it has to be told: it was committed meanwhile, or the worker
 *   that was to tell it may be lost
 * @throws what ends the run
 */
export async function enterNext(
  session: Session,
  lost?: unknown,
): Promise<CommittedStep | undefined> {
  const { run, options, trainer, identity, samples } = session;
  const { members, engine } = options;
  const { saver } = session;
  if (lost === undefined) saver.loseLater();
  else saver.lose(lost);
  assert(members !== undefined && session.ranks !== undefined, "a run whose workers come and go");
  let found: CommittedStep | undefined;
  const hasLed = session.leads;
  const old = [session.ranks];
  try {
    if (members.isLeaving()) await handOver(session);
    for (let reason = lost; ; ) {
      const given = await handingOver(session, members, members.next(trainer.steps, reason));
      try {
        const ranks = await withRoom(given, nearestFolder(options.folder.path));
        found = (await trainer.regroup(ranks)) ?? found;
        const lacksSteps = hasStoodBy(session);
        if (!lacksSteps) enterCommitted(session);
        await agreeOrLose(ranks.group, factsHere({ run, engine, trainer, identity, state: MOVED }));
        const own = lacksSteps ? undefined : samples.ledger;
        samples.ledger = await shareLedger(ranks.group, trainer.steps, own);
        session.ranks = ranks;
        session.hasMoved = true;
        tellWeights(trainer, options.onWeights);
        await takeLead(session);
        tellCopies(session, ranks);
        return found ?? (hasLed ? undefined : session.last);
      } catch (error) {
        // All of them find the same, but one may find it first.
        if (isTooFew(error)) given.group.transport.abort(error);
        else if (!isLoss(error, given)) throw error;
        saver.lose(error);
        old.push(given);
        reason = error;
      }
    }
  } finally {
    for (const { group } of old) await group.close();
  }
}

/** A worker may be told to leave when it waits for the next generation already. */
async function handingOver<T>(session: Session, { leaving }: Members, next: Promise<T>) {
  let waits = true;
  let handed: Promise<void> | undefined;
  void leaving.then(() => {
    if (waits) handed = handOver(session);
  });
  try {
    return await next;
  } finally {
    waits = false;
    await handed;
  }
}

/**
 * A leader that leaves for good lets go of the folder, which the next leader waits for, as soon as a
 * checkpoint that is being written is whole.
 */
async function handOver(session: Session): Promise<void> {
  session.leads = false;
  await session.saver.idle();
  await session.hold?.release();
  session.lock?.release();
  session.hold = session.lock = undefined;
}

/** All workers find which are too slow; each of those says it of itself. */
export function excludeSlow({ options, ranks }: Session, { tooSlow = [] }: StepResult): void {
  const own = tooSlow.find(({ rank }) => rank === ranks?.group.rank);
  if (own !== undefined) options.members?.exclude(own.why);
}

/** Said once of each worker that leads. */
function tellCopies(session: Session, { room }: Ranks): void {
  const { leads, hasMoved, options } = session;
  if (room?.reopens !== false || !leads || session.hasToldCopies === true) return;
  session.hasToldCopies = hasMoved;
  const text =
    "This system does not let workers map memory of each other again (hidepid, ptrace_scope or a " +
    "container forbids /proc/PID/fd), so each change of workers takes new memory and copies the state.";
  options.onEvent({ type: "notice", text });
}

/** Rank 0 of a generation writes the folder of the run. */
async function takeLead(session: Session): Promise<void> {
  const { run, options, ranks, trainer } = session;
  session.leads = ranks?.group.rank === 0;
  if (!session.leads) return;
  session.lock ??= await takeFolder(session);
  session.hold ??= await holdPlace(options);
  session.exporting ??= planExport(run.model, [1, run.batch / run.microBatches]);
  const workers = ranks?.group.size ?? 1;
  const shares = trainer.planned.sharing.ranges.map(({ count }) => count);
  options.onEvent({ type: "generation", step: trainer.steps, workers, shares });
}

/**
 * Takes over the folder of the run. On another machine than the one before it is another folder, at
 * the same place.
 */
async function takeFolder({ options, trainer }: Session): Promise<FolderLock> {
  const { folder, mark, members, beginning, asked: signal } = options;
  const hasOwner = mark !== undefined || members?.hasBegun() === true;
  const lock = await lockForLeader(folder, { signal, hasOwner });
  if (mark === undefined || isMarked(folder, mark)) return lock;
  const kept = beginning === "resume" ? "resume" : "anew";
  await prepareFolder(folder, kept, trainer.steps);
  await markFolder(folder, mark);
  const text = `Another machine leads from now on: its folder "${folder.path}" has what the run writes after step ${trainer.steps}.`;
  options.onEvent({ type: "notice", text });
  return lock;
}

/** Called after a change of generation, with a step that has to be told. */
export type Moved = (step: CommittedStep | undefined) => void;

/**
 * Does what all workers of a generation do together. If a worker is lost, enters the next
 * generation and returns undefined.
 */
export async function unlessLost<Result>(
  session: Session,
  body: () => Promise<Result>,
  moved: Moved,
): Promise<Result | undefined> {
  try {
    return await body();
  } catch (error) {
    if (session.options.members === undefined || !isLoss(error, session.ranks)) throw error;
    moved(await enterNext(session, error));
    return undefined;
  }
}
