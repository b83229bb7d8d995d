/**
 * Saves a run: the leader decides what each worker writes, each worker of its machine writes its
 * shard, and the leader completes the checkpoint when all are there. Nothing of this depends on the
 * ranks staying the same after the workers have been told: who has ended is told by files.
 */
import { join } from "node:path";
import { z } from "zod";
import {
  beginDraft,
  discardDraft,
  gatherShards,
  type HeldTensor,
  layOutShard,
  type Manifest,
  type Piece,
  publish,
  type StoredPart,
  type StoredTensor,
  shareOut,
} from "../checkpoint/index.ts";
import type { Group } from "../collectives/index.ts";
import { LockstepError } from "../errors.ts";
import { version } from "../version.ts";
import { collectedPath, FILES, removeOutdated } from "./folder.ts";
import { sha256Of } from "./identity.ts";
import { fitsBeside, freeMemory, shardInCopy, shardInPlace } from "./saver.ts";
import { type Session, secondsOf } from "./session.ts";
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

/** What a checkpoint says besides its tensors. */
export type Said = Pick<Manifest, "step" | "seconds" | "trainLoss" | "diverged">;

/**
 * `beside`: the workers copy what they hold and go on; the checkpoint is completed beside training,
 * or a notice says why not. It waits for a
 * checkpoint before that is not complete yet. `now`: it is complete when this ends, and the workers leave each other.
 */
export type How = "beside" | "now";

/**
 * All workers call this together, between the same two steps. One that does not lead does what the
 * leader tells it.
 * @throws DISK_FULL, IO_FAILED on the leader, when nothing was begun or with `now`; and what the
 *   group throws
 */
export async function saveTogether(session: Session, loss: number, how: How): Promise<void> {
  if (!session.leads) return follow(session);
  const { options, trainer, saver } = session;
  const { folder, ranks } = options;
  const step = trainer.steps;
  if (saver.hasLeft) return saveAlone(session, said(session, loss, false));
  saver.hasLeft = how === "now";
  const waitedMs = await saver.idle();
  if (how === "beside" && waitedMs > LONG_MS) tellWait(session, waitedMs);
  if (saver.saved === step) {
    const collects = how === "now";
    await tellOthers(ranks?.group, () => ({ collects, waits: false }));
    if (collects) await trainer.collect(collectedPath(folder));
    return;
  }
  const draft = await plan(session, nodeOf(ranks?.group));
  const beside = how === "beside" && draft.isRoom;
  if (how === "beside" && !beside) tellNoRoom(session, draft.bytes);
  let path: string;
  try {
    path = await beginDraft(folder.file(FILES.checkpoints), step, draft.writers);
  } catch (error) {
    await tellOthers(ranks?.group, () => ({ collects: false, waits: false }));
    throw error;
  }
  await tellOthers(ranks?.group, (rank) => {
    const pieces = draft.shares.get(rank);
    const shard = pieces && { draft: path, beside, pieces: [...pieces] };
    return { collects: true, waits: how === "now", ...(shard === undefined ? {} : { shard }) };
  });
  const { signal } = ranks?.group.transport ?? {};
  const completion = { path, beside, said: said(session, loss, false), signal };
  await untilAllHaveWritten(how, ranks?.group, () => complete(session, draft, completion));
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
 * @throws DISK_FULL, IO_FAILED; PEER_LOST when it cannot read what others hold
 */
export async function saveAlone(session: Session, of: Said): Promise<void> {
  const { options, saver } = session;
  await saver.idle();
  if (saver.saved === of.step && !of.diverged) return;
  const draft = await plan(session, [options.ranks?.group.rank ?? 0]);
  const path = await beginDraft(options.folder.file(FILES.checkpoints), of.step, draft.writers);
  await complete(session, draft, { path, beside: false, said: of });
}

/** Writes a checkpoint of step 0. It has no tensors, because the seed determines them. */
export async function saveBeginning({ run, options, identity }: Session, diverged: boolean) {
  const checkpoints = options.folder.file(FILES.checkpoints);
  const path = await beginDraft(checkpoints, 0, []);
  const of = { step: 0, seconds: 0, trainLoss: null, diverged };
  const body = { ...of, position: 0, seed: run.seed, ...identified(identity) };
  await publish(checkpoints, path, { ...body, shards: [], tensors: {} });
}

/** What a checkpoint of the committed steps says. */
export function said(session: Session, loss: number, diverged: boolean): Said {
  const trainLoss = Number.isFinite(loss) ? loss : null;
  return { step: session.trainer.steps, seconds: secondsOf(session), trainLoss, diverged };
}

function identified(
  identity: Session["identity"],
): Pick<Manifest, "lockstep" | "identity" | "identitySha256"> {
  const entries = Object.entries(identity).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return { lockstep: version(), identity, identitySha256: sha256Of(entries.flat()) };
}

/** The ranks of this machine, which see the same folder. */
function nodeOf(group: Group | undefined): readonly number[] {
  if (group === undefined) return [0];
  const { rank, nodes } = group.transport;
  return nodes.find((ranks) => ranks.includes(rank)) ?? [rank];
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
  const { folder, ranks } = options;
  if (ranks === undefined) return;
  const parsed = order.safeParse(JSON.parse(await receiveText(ranks.group.transport, 0)));
  if (!parsed.success) {
    throw new LockstepError("PROTOCOL", "The first worker sent an order to save that is not one.");
  }
  const { collects, waits, shard } = parsed.data;
  if (collects) await trainer.collect(collectedPath(folder));
  await saver.idle();
  if (shard !== undefined) await writeOwn(session, ranks.group.rank, shard);
  if (waits) await ranks.group.barrier();
}

async function writeOwn(
  { options, trainer, saver }: Session,
  rank: number,
  { draft, beside, pieces }: NonNullable<Order["shard"]>,
): Promise<void> {
  const path = join(options.folder.file(FILES.checkpoints), draft);
  const parts = trainer.parts();
  const ready = beside ? await shardInCopy(parts, pieces) : shardInPlace(parts, pieces);
  // The leader reads from the file's name how it has ended, and says it.
  const write = () => ready.write(path, rank).catch(() => undefined);
  if (beside) saver.begin(write);
  else await write();
}

/** What a save will write. */
interface Draft {
  readonly tensors: readonly HeldTensor[];
  /** The ranks that write something, in the order of their shards. */
  readonly writers: readonly number[];
  readonly shares: ReadonlyMap<number, readonly Piece[]>;
  readonly bytes: number;
  /** Whether the free memory has room for a copy. */
  readonly isRoom: boolean;
}

async function plan({ trainer, options }: Session, node: readonly number[]): Promise<Draft> {
  const tensors = trainer.parts().list();
  const leader = options.ranks?.group.rank ?? 0;
  const all = shareOut(tensors, { writers: node, leader });
  const shares = new Map([...all].filter(([, pieces]) => pieces.length > 0));
  const each = [...shares.values()].flat();
  const bytes = each.reduce((sum, { from, to }) => sum + to - from, 0);
  const free = (options.freeMemory ?? freeMemory)();
  return { tensors, shares, writers: [...shares.keys()], bytes, isRoom: fitsBeside(bytes, free) };
}

interface Completion {
  /** The name of the draft. */
  readonly path: string;
  readonly beside: boolean;
  readonly said: Said;
  /** Aborted when a worker is lost. */
  readonly signal?: AbortSignal | undefined;
}

/** Writes the leader's own shard, waits for those of others, and completes the checkpoint. */
async function complete(session: Session, draft: Draft, of: Completion): Promise<void> {
  const { options, trainer, saver } = session;
  const checkpoints = options.folder.file(FILES.checkpoints);
  const folder = join(checkpoints, of.path);
  const rank = options.ranks?.group.rank ?? 0;
  saver.saved = of.said.step;
  const orUndo = async <T>(body: () => Promise<T>): Promise<T> => {
    try {
      return await body();
    } catch (error) {
      saver.saved = undefined;
      await discardDraft(checkpoints, of.path);
      throw error;
    }
  };
  const own = draft.shares.get(rank) ?? [];
  const ready = await orUndo(async () => {
    // `signal` is there when all workers save together.
    if (of.signal !== undefined) await trainer.collect(collectedPath(options.folder));
    const parts = trainer.parts();
    return of.beside ? shardInCopy(parts, own) : shardInPlace(parts, own);
  });
  const write = async () => {
    if (own.length > 0) await ready.write(folder, rank);
    const shards = await gatherShards(folder, draft.writers, of.signal);
    const manifest = manifestOf(session, draft, of.said, shards);
    const path = await publish(checkpoints, of.path, manifest);
    await removeOutdated(options.folder, session.run);
    return path;
  };
  const tell = (path: string) => {
    options.onEvent({ type: "checkpoint", step: of.said.step, path });
  };
  if (!of.beside) return tell(await orUndo(write));
  saver.begin(async () => {
    try {
      tell(await orUndo(write));
    } catch (error) {
      tellFailure(session, of.said.step, error);
    }
  });
}

/** @throws an error that is not of the disk and not of the group: a bug */
function tellFailure({ options }: Session, step: number, error: unknown): void {
  if (!(error instanceof LockstepError)) throw error;
  options.onEvent({ type: "notice", text: notWritten(step, error) });
}

export function notWritten(step: number, error: LockstepError): string {
  return `step ${step}: no checkpoint was written, and the one before is kept. ${error.message}`;
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
  const text = `Step ${trainer.steps}: training waited ${(waitedMs / 1000).toFixed(1)} s until the checkpoint before was on disk. A larger checkpointEvery would avoid this.`;
  options.onEvent({ type: "notice", text });
}

function manifestOf(
  { run, identity }: Session,
  { tensors, writers, shares }: Draft,
  of: Said,
  shards: Manifest["shards"],
): Manifest {
  const types = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const parts = new Map<string, StoredPart[]>(tensors.map(({ name }) => [name, []]));
  for (const [shard, rank] of writers.entries()) {
    for (const { name, from, start, end } of layOutShard(shares.get(rank) ?? [], types).pieces) {
      parts.get(name)?.push({ shard, start, end, from });
    }
  }
  const stored = tensors.map(({ name, dtype, shape }): [string, StoredTensor] => {
    const own = (parts.get(name) ?? []).toSorted((a, b) => a.from - b.from);
    return [name, { dtype, shape, parts: own }];
  });
  return {
    ...identified(identity),
    ...of,
    position: of.step * run.batch,
    seed: run.seed,
    shards,
    tensors: Object.fromEntries(stored),
  };
}
