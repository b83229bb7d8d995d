/**
 * Which workers reach the place for checkpoints. Those of the leader's node do. Whether those of
 * other nodes see the same folder is found out, because only the machines know what is mounted: the
 * leader leaves a mark there under a new name, and each of them looks for it.
 */
import { type CheckpointStore, isMark, markName } from "../checkpoint/index.ts";
import { type Group, tellNumbers } from "../collectives/index.ts";
import { LockstepError } from "../errors.ts";
import { notUnderstood, tellOthers } from "./orders.ts";
import type { Saver } from "./saver.ts";

/**
 * Returns the ranks that write together, ascending within each node. The leader calls it; the others
 * are asked by an order with a mark, once in a generation.
 * @throws what the group throws
 */
export async function writersOf(
  group: Group,
  place: CheckpointStore,
  saver: Saver,
): Promise<readonly number[]> {
  const { rank, nodes } = group.transport;
  if (place.isEverywhere) return nodes.flat();
  const here = nodes.find((ranks) => ranks.includes(rank)) ?? [rank];
  if (nodes.length === 1) return here;
  const known = saver.reached.get(group);
  if (known !== undefined) return known;
  const mark = markName();
  // A place that cannot be written is reported by the save itself.
  if (!(await isDone(() => place.writeText(mark, "")))) return here;
  try {
    await tellOthers(group, () => ({ mark, collects: false, waits: false }));
    const seen = await tellNumbers(group.transport, [1]);
    const writers = nodes.flat().filter((one) => here.includes(one) || seen[one]?.[0] === 1);
    saver.reached.set(group, writers);
    return writers;
  } finally {
    await isDone(() => place.removeText(mark));
  }
}

/** Tells the leader whether this worker sees its mark and can write beside it. */
export async function answerMark(
  { rank, transport }: Group,
  place: CheckpointStore,
  mark: string,
): Promise<void> {
  if (!isMark(mark)) throw notUnderstood();
  const own = `${mark}.${rank}`;
  const reaches = await isDone(async () => {
    if ((await place.readText(mark)) === undefined) throw nothingThere(place);
    await place.writeText(own, "");
    await place.removeText(own);
  });
  await tellNumbers(transport, [reaches ? 1 : 0]);
}

async function isDone(body: () => Promise<void>): Promise<boolean> {
  try {
    await body();
    return true;
  } catch (error) {
    if (!(error instanceof LockstepError)) throw error;
    return false;
  }
}

function nothingThere({ place }: CheckpointStore): LockstepError {
  return new LockstepError("FILE_NOT_FOUND", `"${place}" has no mark of the leader.`);
}
