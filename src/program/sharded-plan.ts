/** What sharded sums are planned from: who looks after what, and which pieces of the pass gather or sum something. */
import { LockstepError } from "../errors.ts";
import type { ComputeTask, GatherTask, ReduceTask, StepGraph } from "../plan/index.ts";
import { type FlatVectors, flatName } from "./flat.ts";
import type { RankGroups } from "./levels.ts";
import type { Ownership } from "./ownership.ts";
import { bucketPieces, cutPiece } from "./pieces.ts";

/** @throws INVALID_OPTION where ranks do not share one node, or an update needs whole parameters */
export function checkSharded({
  step,
  groups,
  vectors,
}: {
  readonly step: StepGraph;
  readonly groups: RankGroups;
  readonly vectors: FlatVectors;
}): void {
  const hint = "Use zero: 1, or workers of one node.";
  if (groups.members.length !== 1) {
    throw new LockstepError(
      "INVALID_OPTION",
      `The step "${step.name}" shards gradients over workers of several nodes, which is not done yet.`,
      { hint },
    );
  }
  const whole = vectors.updates.find(({ rule }) => rule.granularity === "tensor");
  if (whole === undefined) return;
  throw new LockstepError(
    "INVALID_OPTION",
    `The optimizer's rule "${whole.rule.name}" updates whole parameters, which no worker has where gradients are sharded.`,
    { hint },
  );
}

/** Buckets cut into a part for each rank; a tile belongs to the bucket that makes the last of it. */
export function ownershipOf(
  step: StepGraph,
  { gradients }: FlatVectors,
  reduces: readonly ReduceTask[],
  { group, rank, ranks }: { readonly group: string; readonly rank: number; readonly ranks: number },
): Ownership {
  const names = reduces.map(({ outputs }) => outputs.map((name) => flatName(step, name)));
  const pieces = bucketPieces(gradients, names).flat();
  const sharded = pieces.filter((piece) => piece.group.key !== "summed");
  return {
    group,
    place: rank,
    ranks: Array.from({ length: ranks }, (_, place) => place),
    cuts: sharded.map((piece) => cutPiece(piece, ranks)),
  };
}

/** What a task of each piece becomes; tasks are counted from 0. */
export function byPiece<From, To>(
  pieces: readonly ComputeTask[],
  taskOf: (piece: ComputeTask) => From | undefined,
  make: (task: From, turn: number) => To,
): (To | undefined)[] {
  let turn = 0;
  return pieces.map((piece) => {
    const task = taskOf(piece);
    return task === undefined ? undefined : make(task, turn++);
  });
}

export function gatherOf(
  { inputs }: ComputeTask,
  gathers: readonly GatherTask[],
): GatherTask | undefined {
  return gathers.find(({ outputs }) => outputs.some((name) => inputs.includes(name)));
}

export function reduceOf(
  { outputs }: ComputeTask,
  reduces: readonly ReduceTask[],
): ReduceTask | undefined {
  return reduces.find(({ inputs }) => inputs.some((name) => outputs.includes(name)));
}
