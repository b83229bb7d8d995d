/**
 * Chooses the checkpoint that a run continues from: the newest one that is whole on all workers. All
 * workers choose together, and share out the reading of it.
 */
import { damaged, describeFault, FAULTS, type Source } from "../checkpoint/index.ts";
import { type Group, tellNumbers } from "../collectives/index.ts";
import { LockstepError } from "../errors.ts";
import { noneUsable, openNewest, type Unusable } from "./checkpoint.ts";
import { checkpointsName, type RunFolder } from "./folder.ts";
import type { CheckpointHead } from "./head.ts";

const COPY =
  "Copy the folder `checkpoints` to the same place on each machine, or give the run a place for checkpoints that all machines see: a folder that they share, or s3://BUCKET/PREFIX.";

export interface Chosen {
  readonly head: CheckpointHead;
  /** Newer checkpoints that cannot be used. */
  readonly unusable: readonly Unusable[];
  /** Sentences about them, for a run that continues. */
  readonly notices: readonly string[];
}

/**
 * All workers call this together; `group` is undefined for one worker.
 * @throws CHECKPOINT or FILE_CORRUPT when no checkpoint is whole; STORE; what the group throws
 */
export async function chooseCheckpoint(folder: RunFolder, group?: Group): Promise<Chosen> {
  const newer: Unusable[] = [];
  let below = Number.POSITIVE_INFINITY;
  for (;;) {
    const { head, unusable } = await openNewest(folder, below);
    newer.push(...unusable);
    const steps = await tellAll(group, [head?.step ?? -1]);
    const least = Math.min(...steps.map(([step = -1]) => step));
    if (head === undefined) {
      const most = Math.max(...steps.map(([step = -1]) => step));
      throw most < 0 || newer.length > 0 ? noneUsable(folder, newer) : nothingHere(folder, most);
    }
    if (least < 0) throw nothingElsewhere(folder, head);
    if (steps.some(([step]) => step !== least)) {
      if (head.step !== least) newer.push({ step: head.step, error: notEverywhere(head) });
      below = least + 1;
      continue;
    }
    const error = await check(head, group);
    if (error === undefined) {
      const notices = newer.map((one) => sentence(one, head, checkpointsName(folder)));
      return { head, unusable: newer, notices };
    }
    newer.push({ step: head.step, error });
    below = head.step;
  }
}

/** Workers that read the same shards share them out; else each node reads all of its own copy. */
async function check(
  { path, source }: CheckpointHead,
  group: Group | undefined,
): Promise<LockstepError | undefined> {
  const { rank = 0, nodes = [[0]] } = group?.transport ?? {};
  const here = nodes.find((ranks) => ranks.includes(rank)) ?? [rank];
  const node = source.isEverywhere ? nodes.flat() : here;
  const own = await firstFault(source, node.indexOf(rank), node.length);
  const [fault, shard] = (await tellAll(group, own)).find(([code]) => code !== 0) ?? [];
  if (fault === undefined || shard === undefined) return undefined;
  const file = source.files[shard] ?? path;
  return damaged(path, describeFault(file, FAULTS[fault - 1] ?? "not readable"));
}

/** Returns 0, or the number of the fault and the index of the shard. */
async function firstFault(source: Source, place: number, count: number): Promise<number[]> {
  for (let shard = place; shard < source.files.length; shard += count) {
    const fault = await source.check(shard);
    if (fault !== undefined) return [FAULTS.indexOf(fault) + 1, shard];
  }
  return [0, 0];
}

async function tellAll(
  group: Group | undefined,
  own: readonly number[],
): Promise<readonly (readonly number[])[]> {
  return group === undefined ? [own] : tellNumbers(group.transport, own);
}

function sentence(
  { step, error }: Unusable,
  { step: used }: CheckpointHead,
  place: string,
): string {
  const [why] = error.message.split("\n");
  const kept = step < 0 ? "" : `, and the other is kept as ${place}/aside-step-${step}`;
  return `${why} The run continues from the checkpoint of step ${used}${kept}.`;
}

function notEverywhere({ path }: CheckpointHead): LockstepError {
  return new LockstepError("CHECKPOINT", `The checkpoint "${path}" is not on every machine.`);
}

function nothingHere({ path }: RunFolder, step: number): LockstepError {
  return new LockstepError(
    "CHECKPOINT",
    `There is no checkpoint in "${path}", and another machine has one of step ${step}.`,
    { hint: COPY },
  );
}

function nothingElsewhere({ path }: RunFolder, { step }: CheckpointHead): LockstepError {
  return new LockstepError(
    "CHECKPOINT",
    `The checkpoint of step ${step} in "${path}" is not there for every worker of the run.`,
    { hint: COPY },
  );
}
