/** What sharded sums are planned from: who looks after what, and which pieces of the pass gather or sum something. */
import { LockstepError } from "../errors.ts";
import { shardAxes } from "../mesh/index.ts";
import {
  type ComputeTask,
  type GatherTask,
  MICRO_BATCH,
  type ReduceTask,
  type StepGraph,
} from "../plan/index.ts";
import { type FlatVectors, flatName } from "./flat.ts";
import { bucketPieces, type Piece } from "./pieces.ts";

/** The axes over which a step shards its gradients. @throws INVALID_OPTION where an update needs whole parameters */
export function axesOf(step: StepGraph, { updates }: FlatVectors): string[] {
  const whole = updates.find(({ rule }) => rule.granularity === "tensor");
  if (whole !== undefined) {
    throw new LockstepError(
      "INVALID_OPTION",
      `The optimizer's rule "${whole.rule.name}" updates whole parameters, which no worker has where gradients are sharded.`,
      { hint: "Use zero: 1, or another optimizer." },
    );
  }
  const gradients = [...step.values.values()].filter(({ role }) => role === "gradient");
  const placements = gradients.map(({ placement }) => shardAxes(placement));
  return placements.find((axes) => axes.length > 0 && !axes.includes(MICRO_BATCH)) ?? [];
}

/** By bucket: the tiles that it makes the last of. */
export function bucketTiles(
  step: StepGraph,
  { gradients }: FlatVectors,
  reduces: readonly ReduceTask[],
): Piece[][] {
  const names = reduces.map(({ outputs }) => outputs.map((name) => flatName(step, name)));
  const pieces = bucketPieces(gradients, names);
  return pieces.map((own) => own.filter(({ group }) => group.key !== "summed"));
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
