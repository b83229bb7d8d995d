/** What a save writes: which worker writes what, and what the manifest says of it. It writes nothing. */
import {
  type HeldTensor,
  layOutShard,
  type Manifest,
  type Piece,
  type StoredPart,
  type StoredTensor,
  shareOut,
} from "../checkpoint/index.ts";
import { version } from "../package.ts";
import { sha256Of } from "./identity.ts";
import { fitsBeside, freeMemory } from "./saver.ts";
import { type Session, secondsOf } from "./session.ts";

/** What a checkpoint says besides its tensors. */
export type Said = Pick<Manifest, "step" | "seconds" | "trainLoss" | "diverged" | "ledger">;

/** What a checkpoint of the committed steps says. */
export function said(session: Session, loss: number, diverged: boolean): Said {
  const trainLoss = Number.isFinite(loss) ? loss : null;
  const { trainer, samples } = session;
  const [step, seconds] = [trainer.steps, secondsOf(session)];
  return { step, seconds, trainLoss, diverged, ledger: samples.ledger.record };
}

export function identified(
  identity: Session["identity"],
): Pick<Manifest, "lockstep" | "identity" | "identitySha256"> {
  const entries = Object.entries(identity).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return { lockstep: version(), identity, identitySha256: sha256Of(entries.flat()) };
}

/** What a save will write. */
export interface Draft {
  readonly tensors: readonly HeldTensor[];
  /** The ranks that write something, in the order of their shards. */
  readonly writers: readonly number[];
  readonly shares: ReadonlyMap<number, readonly Piece[]>;
  readonly bytes: number;
  /** Whether the free memory has room for a copy. */
  readonly isRoom: boolean;
}

export function plan({ trainer, options, ranks }: Session, among: readonly number[]): Draft {
  const tensors = trainer.parts().list();
  const leader = ranks?.group.rank ?? 0;
  const all = shareOut(tensors, { writers: among, leader });
  const shares = new Map([...all].filter(([, pieces]) => pieces.length > 0));
  const each = [...shares.values()].flat();
  const bytes = each.reduce((sum, { from, to }) => sum + to - from, 0);
  const free = (options.freeMemory ?? freeMemory)();
  return { tensors, shares, writers: [...shares.keys()], bytes, isRoom: fitsBeside(bytes, free) };
}

export function manifestOf(
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
