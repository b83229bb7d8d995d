/**
 * Saves a run: the leader decides what each worker writes, each worker that reaches the place for
 * checkpoints writes its shard, and the leader completes the checkpoint when all are there. Nothing
 * of this depends on the ranks staying the same after the workers have been told: who has ended is
 * told by names in the draft.
 */
import { z } from "zod";
import type { Group } from "../collectives/index.ts";
import { LockstepError } from "../errors.ts";
import { byteLength } from "../tensor/index.ts";
import { type Draft, identified, manifestOf, plan, type Said, said, writersOf } from "./draft.ts";
import { collectedPath, removeOutdated } from "./folder.ts";
import { readyShard } from "./saver.ts";
import type { Session } from "./session.ts";
import { receiveText, sendText } from "./tell.ts";

/** What the leader tells each of the others at a save. */
const order = z.strictObject({
  /** Whether parts that other nodes hold go to the leader. */
  collects: z.boolean(),
  /** Whether all wait for each other when they have written. */
  waits: z.boolean(),
  /** What this worker writes, if anything. */
  shard: z
    .strictObject({
      draft: z.string().regex(/^[\w.-]+$/),
      beside: z.boolean(),
      pieces: z.array(z.strictObject({ name: z.string(), from: z.int(), to: z.int() })),
    })
    .optional(),
});
type Order = z.infer<typeof order>;

/** The milliseconds of waiting for an earlier checkpoint that are worth a notice. */
const LONG_MS = 1000;

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
  if (session.options.members !== undefined) await collectParts(session);
  if (!session.leads) return follow(session);
  const { saver } = session;
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
 * The workers that save together; undefined for one that saves alone. Where workers come and go the
 * leader writes all, out of the memory that it shares with the others: a message that is lost with
 * its generation would leave some waiting for an order that others have heard.
 */
function groupOf({ options, ranks }: Session): Group | undefined {
  return options.members === undefined ? ranks?.group : undefined;
}

async function lead(session: Session, loss: number, how: How): Promise<void> {
  const { options, trainer, saver } = session;
  const { folder } = options;
  const group = groupOf(session);
  const step = trainer.steps;
  const waitedMs = await saver.idle();
  if (how === "beside" && waitedMs > LONG_MS) tellWait(session, waitedMs);
  if (saver.saved === step) {
    const collects = how === "now";
    await tellOthers(group, () => ({ collects, waits: false }));
    if (collects) await trainer.collect(collectedPath(folder));
    return;
  }
  const { checkpoints } = folder;
  const draft = plan(session, writersOf(group, checkpoints));
  const beside = how === "beside" && draft.isRoom;
  if (how === "beside" && !beside) tellNoRoom(session, draft.bytes);
  // Workers that write what they hold need nobody to collect it, except for an export.
  const collects = how === "now" || !checkpoints.isEverywhere;
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
  await saver.idle();
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

async function tellOthers(group: Group | undefined, orderOf: (rank: number) => Order) {
  if (group === undefined) return;
  for (let rank = 0; rank < group.size; rank++) {
    if (rank === group.rank) continue;
    await sendText(group.transport, rank, JSON.stringify(orderOf(rank)));
  }
}

async function follow(session: Session): Promise<void> {
  const { options, trainer, saver } = session;
  const { folder } = options;
  const group = groupOf(session);
  if (group === undefined) return;
  const { collects, waits, shard } = read(await receiveText(group.transport, 0));
  if (collects) await trainer.collect(collectedPath(folder));
  await saver.idle();
  if (shard !== undefined) await writeOwn(session, group.rank, shard);
  if (waits) await group.barrier();
}

function read(text: string): Order {
  try {
    return order.parse(JSON.parse(text));
  } catch (cause) {
    throw notUnderstood(cause);
  }
}

function notUnderstood(cause?: unknown): LockstepError {
  const text = "The first worker sent an order to save that cannot be understood.";
  return new LockstepError("PROTOCOL", text, { cause });
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
  /** Aborted when a worker is lost. */
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
  const write = async () => {
    if (own.length > 0) await ready.write(checkpoints, of.path, rank);
    const shards = await checkpoints.gather(of.path, draft.writers, of.signal);
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

/** @throws an error that is not of the place and not of the group: a bug */
function tellFailure({ options }: Session, step: number, error: unknown): void {
  if (!(error instanceof LockstepError)) throw error;
  options.onEvent({ type: "notice", text: notWritten(step, error) });
}

export function notWritten(step: number, error: LockstepError): string {
  return `step ${step}: no checkpoint was written, and the one before is kept. ${inOneLine(error)}`;
}

function inOneLine({ message }: LockstepError): string {
  return message.replaceAll(/\s*\n\s*/g, " ");
}

function tellNoRoom(session: Session, bytes: number): void {
  if (session.saver.hasToldNoRoom) return;
  session.saver.hasToldNoRoom = true;
  const megabytes = Math.ceil(bytes / 1e6);
  const text = `Checkpoints are written between two steps, because free memory has no room for a copy of ${megabytes} MB.`;
  session.options.onEvent({ type: "notice", text });
}

function tellWait(session: Session, waitedMs: number): void {
  if (session.saver.hasToldWait) return;
  session.saver.hasToldWait = true;
  const { options, trainer } = session;
  const text = `Step ${trainer.steps}: training waited ${(waitedMs / 1000).toFixed(1)} s until the checkpoint before was written. A larger checkpointEvery would avoid this.`;
  options.onEvent({ type: "notice", text });
}
