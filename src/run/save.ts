/**
 * Saves a run: the leader decides what each worker writes, each worker that reaches the place for
 * checkpoints writes its shard, and the leader completes the checkpoint when all are there. Nothing
 * of this depends on the ranks staying the same after the workers have been told: who has ended is
 * told by names in the draft.
 */
import type { Group } from "../collectives/index.ts";
import { LockstepError } from "../errors.ts";
import { byteLength } from "../tensor/index.ts";
import { type Draft, identified, manifestOf, plan, type Said, said } from "./draft.ts";
import { collectedPath, removeOutdated } from "./folder.ts";
import { notUnderstood, type Order, receiveOrder, tellOthers } from "./orders.ts";
import { answerMark, writersOf } from "./reach.ts";
import { inOneLine, tellFailure, tellNoRoom, tellWait } from "./save-notices.ts";
import { readyShard } from "./saver.ts";
import type { Session } from "./session.ts";

/**
 * `beside`: the workers copy what they hold and go on; the checkpoint is completed beside training,
 * or a notice says why not. It waits for a checkpoint before that is not complete yet. `now`: it is
 * complete when this ends, and the workers leave each other.
 */
export type How = "beside" | "now";

/**
 * All workers call this together, between the same two steps. One that does not lead does what the
 * leader tells it.
 * @throws DISK_FULL, IO_FAILED, STORE on the leader, when nothing was begun or with `now`; and what
 *   the group throws
 */
export async function saveTogether(session: Session, loss: number, how: How): Promise<void> {
  const { options, saver } = session;
  if (options.members !== undefined && how === "now") {
    await collectParts(session);
    // Workers that leave may be killed before they have written.
    saver.loseLater();
  }
  if (!session.leads) return follow(session, how);
  if (saver.hasLeft) return saveAlone(session, said(session, loss, false));
  try {
    await lead(session, loss, how);
  } finally {
    // After a failure of the group the workers that are left save together again.
    const isLost = session.ranks?.group.transport.signal.aborted === true;
    saver.hasLeft = how === "now" && !isLost;
  }
}

/**
 * Workers that come and go bring to the leader what other nodes hold: all call this after the same
 * step, and a second time does nothing.
 */
export async function collectParts({ options, trainer, saver }: Session): Promise<void> {
  if (!saver.hasLeft) await trainer.collect(collectedPath(options.folder));
}

/**
 * The workers that save together; undefined for a leader that writes all. Where workers come and go
 * the last save of a run is such a one: the leader has all that it needs, and the others may go.
 */
function groupOf({ options, ranks }: Session, how: How): Group | undefined {
  return options.members === undefined || how === "beside" ? ranks?.group : undefined;
}

async function lead(session: Session, loss: number, how: How): Promise<void> {
  const { options, trainer, saver } = session;
  const { folder } = options;
  const group = groupOf(session, how);
  const step = trainer.steps;
  // Workers that come and go save again what is due; what is being written holds nobody up.
  if (how === "beside" && saver.isWriting(step)) {
    return tellOthers(group, () => ({ collects: false, waits: false }));
  }
  const waitedMs = await saver.idle(session.ranks?.group.transport.signal);
  if (how === "beside") tellWait(session, waitedMs);
  if (saver.saved === step) {
    const collects = how === "now";
    await tellOthers(group, () => ({ collects, waits: false }));
    if (collects) await trainer.collect(collectedPath(folder));
    return;
  }
  const { checkpoints } = folder;
  // Where parts of tensors lie on several machines, the leader alone has whole ones.
  const isAlone = group === undefined || trainer.plan.divided?.isInPlace === false;
  const writers = isAlone ? [0] : await writersOf(group, checkpoints, saver);
  const draft = plan(session, writers);
  const beside = how === "beside" && draft.isRoom;
  if (how === "beside" && !beside) tellNoRoom(session, draft.bytes);
  // Workers that write what they hold need nobody to collect it, except for an export.
  const collects = how === "now" || writers.length < (group?.size ?? 1);
  let path: string;
  try {
    path = await checkpoints.begin(step, draft.writers);
  } catch (error) {
    await tellOthers(group, () => ({ collects: false, waits: false }));
    throw error;
  }
  try {
    await tellOthers(group, (rank) => {
      const pieces = draft.shares.get(rank);
      const shard = pieces && { draft: path, beside, pieces: [...pieces] };
      return { collects, waits: how === "now", ...(shard === undefined ? {} : { shard }) };
    });
  } catch (error) {
    await checkpoints.discard(path);
    throw error;
  }
  const { signal } = group?.transport ?? {};
  const isCollected = group !== undefined && collects;
  const completion = { path, beside, said: said(session, loss, false), signal, isCollected };
  await untilAllHaveWritten(how, group, () => complete(session, draft, completion));
}

/** A worker that leaves before the others have written might be taken for a lost one. */
async function untilAllHaveWritten(
  how: How,
  group: Group | undefined,
  write: () => Promise<void>,
): Promise<void> {
  if (how === "beside" || group === undefined) return write();
  const [written] = await Promise.allSettled([write()]);
  // After a failure of the group this fails too; the first failure is the one to report.
  const [met] = await Promise.allSettled([group.barrier()]);
  for (const ended of [written, met]) if (ended.status === "rejected") throw ended.reason;
}

/**
 * The leader writes all of it, now: after a failure, or when the others have left.
 * @throws DISK_FULL, IO_FAILED, STORE; PEER_LOST when it cannot read what others hold
 */
export async function saveAlone(session: Session, of: Said): Promise<void> {
  const { options, saver } = session;
  await saver.idle(session.ranks?.group.transport.signal);
  if (saver.saved === of.step && !of.diverged) return;
  const draft = plan(session, [session.ranks?.group.rank ?? 0]);
  const path = await options.folder.checkpoints.begin(of.step, draft.writers);
  await complete(session, draft, { path, beside: false, said: of, isCollected: false });
}

/** Writes a checkpoint of step 0. It has no tensors, because the seed determines them. */
export async function saveBeginning({ run, options, identity }: Session, diverged: boolean) {
  const { checkpoints } = options.folder;
  const path = await checkpoints.begin(0, []);
  const of = { step: 0, seconds: 0, trainLoss: null, diverged };
  const body = { ...of, position: 0, seed: run.seed, ...identified(identity) };
  await checkpoints.publish(path, { ...body, shards: [], tensors: {} });
}

async function follow(session: Session, how: How): Promise<void> {
  const { options, trainer, saver } = session;
  const { folder } = options;
  const group = groupOf(session, how);
  if (group === undefined) return;
  let order = await receiveOrder(group);
  if (order.mark !== undefined) {
    await answerMark(group, folder.checkpoints, order.mark);
    order = await receiveOrder(group);
  }
  const { collects, waits, shard } = order;
  if (collects) await trainer.collect(collectedPath(folder));
  if (shard !== undefined || waits) await saver.idle();
  if (shard !== undefined) await writeOwn(session, group.rank, shard);
  if (waits) await group.barrier();
}

async function writeOwn(
  { options, trainer, saver }: Session,
  rank: number,
  { draft, beside, pieces }: NonNullable<Order["shard"]>,
): Promise<void> {
  const { checkpoints } = options.folder;
  const parts = trainer.parts();
  const known = new Map(parts.list().map((tensor) => [tensor.name, byteLength(tensor)]));
  for (const { name, from, to } of pieces) {
    if (!(from >= 0 && from < to && to <= (known.get(name) ?? 0))) throw notUnderstood();
  }
  const ready = await readyShard(parts, pieces, beside);
  // The leader reads in the draft how it has ended, and says it.
  const write = () => ready.write(checkpoints, draft, rank).catch(() => undefined);
  if (ready.isCopy) saver.begin(write);
  else await write();
}

interface Completion {
  /** The name of the draft. */
  readonly path: string;
  readonly beside: boolean;
  readonly said: Said;
  /** Of the group: aborted when a worker is lost. */
  readonly signal?: AbortSignal | undefined;
  /** Whether all workers bring to the leader what other nodes hold. */
  readonly isCollected: boolean;
}

/** Writes the leader's own shard, waits for those of others, and completes the checkpoint. */
async function complete(session: Session, draft: Draft, of: Completion): Promise<void> {
  const { options, trainer, saver } = session;
  const { checkpoints } = options.folder;
  const rank = session.ranks?.group.rank ?? 0;
  saver.saved = of.said.step;
  const orUndo = async <T>(body: () => Promise<T>): Promise<T> => {
    try {
      return await body();
    } catch (error) {
      saver.saved = undefined;
      await checkpoints.discard(of.path);
      throw error;
    }
  };
  const own = draft.shares.get(rank) ?? [];
  const ready = await orUndo(async () => {
    if (of.isCollected) await trainer.collect(collectedPath(options.folder));
    const parts = trainer.parts();
    return readyShard(parts, own, of.beside);
  });
  // A copy is written while workers may come and go.
  const hasLeft = ready.isCopy && options.members !== undefined;
  const signal = hasLeft ? saver.expect() : of.signal;
  const write = async () => {
    if (own.length > 0) await ready.write(checkpoints, of.path, rank);
    const shards = await checkpoints.gather(of.path, draft.writers, signal);
    const manifest = manifestOf(session, draft, of.said, shards);
    return checkpoints.publish(of.path, manifest);
  };
  const published = async () => {
    const path = await orUndo(write);
    options.onEvent({ type: "checkpoint", step: of.said.step, path });
    await removeOld(session);
  };
  if (of.beside && !ready.isCopy) tellNoRoom(session, draft.bytes);
  if (!ready.isCopy) return published();
  saver.begin(async () => {
    try {
      await published();
    } catch (error) {
      tellFailure(session, of.said.step, error);
    }
  });
}

/** What cannot be removed now is removed after the next checkpoint. */
async function removeOld({ run, options }: Session): Promise<void> {
  try {
    await removeOutdated(options.folder, run);
  } catch (error) {
    if (!(error instanceof LockstepError)) throw error;
    const text = `Older checkpoints were not removed. ${inOneLine(error)}`;
    options.onEvent({ type: "notice", text });
  }
}
