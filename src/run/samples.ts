/** Which samples a run commits, entered in its ledger step by step. */
import { type Entry, Ledger, type LedgerRecord, ledgerSchema } from "../checkpoint/index.ts";
import { type Group, tellNumbers } from "../collectives/index.ts";
import { type PositionRange, positionsOfStep } from "../data/index.ts";
import { assert, LockstepError } from "../errors.ts";
import { lastStepOf } from "../telemetry/index.ts";
import { positionsOf, type Ranks, type Trainer } from "../train/index.ts";
import { FILES, type RunFolder } from "./folder.ts";
import type { CheckpointHead } from "./head.ts";
import type { Change } from "./identity.ts";
import type { Run } from "./run.ts";
import { receiveText, sendText } from "./tell.ts";

export interface LedgerOf {
  readonly run: Run;
  readonly folder: RunFolder;
  /** The checkpoint that the run continues from, if there is one. */
  readonly head: CheckpointHead | undefined;
  /** The options that differ from before. */
  readonly changes: readonly Change[];
  /** Whether steps were made before, which may have come further than the checkpoint. */
  readonly goesOn: boolean;
}

/** The ledger that a run begins with, or goes on with. */
export function ledgerOf({ run, folder, head, changes, goesOn }: LedgerOf): Ledger {
  const { step = 0, ledger: record } = head ?? {};
  const begins = { step, position: step * run.batch };
  const unknown = { begins, stretches: [], earlier: begins.position, repeated: 0 };
  const before = new Ledger(record ?? unknown);
  const { samplesCommitted: earlier, samplesRepeated: repeated } = before;
  const isOtherBatch = changes.some(({ name }) => name === "batch");
  const ledger = isOtherBatch ? new Ledger({ ...unknown, earlier, repeated }) : before;
  assert(ledger.steps === step, "a checkpoint has the ledger of its step");
  // What was told of later steps is lost with them: they are committed again.
  if (goesOn) ledger.fellBackFrom(lastStepOf(folder.file(FILES.metrics)) * run.batch);
  return ledger;
}

/** A worker that makes steps. */
export interface Entering {
  readonly run: Run;
  /** The other workers, if there are any. */
  readonly ranks: Ranks | undefined;
  readonly trainer: Trainer;
  readonly samples: Committing;
}

export interface Committing {
  ledger: Ledger;
  /** Which micro-batches each worker computes. */
  shares: Shares | undefined;
  /** The last step that was begun. */
  entry: Entry | undefined;
}

/** What all workers have told each other. */
export interface Shares {
  /** Others than those of the next step: then they tell each other again. */
  readonly ranges: Trainer["planned"]["sharing"]["ranges"];
  readonly microBatches: readonly (readonly number[])[];
}

/**
 * Checks that a step will commit the samples that are next, each by one worker, and remembers it.
 * All workers call it together.
 * @param own the positions that this worker reads
 */
export async function beginEntry(
  session: Entering,
  step: number,
  own: readonly PositionRange[],
): Promise<void> {
  const { run, ranks, trainer, samples } = session;
  const { ranges } = trainer.planned.sharing;
  if (samples.shares?.ranges !== ranges) {
    samples.shares = { ranges, microBatches: await tellShares(session) };
  }
  const positions = positionsOfStep(step, run.batch);
  const { rank = 0, generation = 0 } = ranks?.group.transport ?? {};
  const counted = firstOf(trainer.plan.places, rank);
  const parts = samples.shares.microBatches.map((microBatches, at) =>
    at === counted ? own : positionsOf(microBatches, positions, run.microBatches),
  );
  const entry = { step, positions, generation, parts };
  samples.ledger.check(entry);
  samples.entry = entry;
}

/** Every worker tells the others which micro-batches its program really has. */
async function tellShares({ run, ranks, trainer }: Entering): Promise<number[][]> {
  const all = Array.from({ length: run.microBatches }, (_, index) => index);
  const own = all.map((index) => Number(trainer.plan.microBatches.includes(index)));
  const told = ranks === undefined ? [own] : await tellNumbers(ranks.group.transport, own);
  const shares = told.map((has) => all.filter((index) => has[index] === 1));
  return countedOnce(shares, trainer.plan.places);
}

/** The rank that counts for a rank's samples. */
function firstOf(places: readonly (readonly number[])[] | undefined, rank: number): number {
  const peer = places?.find((ranks) => ranks.includes(rank))?.indexOf(rank) ?? -1;
  return places?.[0]?.[peer] ?? rank;
}

/**
 * Workers that divide the model compute the same micro-batches together: they count for the first of
 * them.
 */
function countedOnce(
  shares: readonly number[][],
  places: readonly (readonly number[])[] = [],
): number[][] {
  const [first = [], ...others] = places;
  const counted = [...shares];
  for (const ranks of others) {
    for (const [peer, rank] of ranks.entries()) {
      const isSame = String(shares[rank]) === String(shares[first[peer] as number]);
      assert(isSame, "workers that divide the model have the same micro-batches");
      counted[rank] = [];
    }
  }
  return counted;
}

/**
 * Whether others have committed steps without this worker, which stood by meanwhile: its ledger lacks
 * them, and those have it.
 */
export function hasStoodBy({ samples: { ledger }, trainer }: Entering): boolean {
  return trainer.steps > ledger.steps + 1;
}

/** Enters the last step that was begun, if it is committed and not entered yet. */
export function enterCommitted({ samples: { entry, ledger }, trainer }: Entering): void {
  if (entry !== undefined && entry.step === ledger.steps && trainer.steps > ledger.steps) {
    ledger.commit(entry);
  }
  assert(ledger.steps === trainer.steps, "the ledger has each committed step");
}

/**
 * Gives all workers the ledger of the first one, which holds the state of the run. All call it
 * together.
 * @param own undefined on a worker that has none
 * @throws PROTOCOL when two workers have entered different samples; what the group throws
 */
export async function shareLedger(
  group: Group | undefined,
  steps: number,
  own?: Ledger,
): Promise<Ledger> {
  const { transport } = group ?? {};
  if (transport === undefined || transport.rank === 0) {
    assert(own?.steps === steps, "the first worker has the ledger of the run");
    const text = JSON.stringify(own.record);
    for (let rank = 1; rank < (transport?.size ?? 1); rank++) {
      if (transport !== undefined) await sendText(transport, rank, text);
    }
    return own;
  }
  const ledger = new Ledger(read(await receiveText(transport, 0)));
  if (ledger.steps !== steps || (own !== undefined && own.position !== ledger.position)) {
    throw new LockstepError("PROTOCOL", "Workers of this run have committed different samples.");
  }
  return ledger;
}

function read(text: string): LedgerRecord {
  try {
    return ledgerSchema.parse(JSON.parse(text));
  } catch (cause) {
    const what = "The first worker sent a ledger of samples that cannot be understood.";
    throw new LockstepError("PROTOCOL", what, { cause });
  }
}
