/** What sharded sums bring together at once: the parameters that a piece of the pass reads, and the gradients that it makes. */
import { LockstepError } from "../errors.ts";
import {
  type ComputeTask,
  type GatherTask,
  isOfKind,
  MICRO_BATCH,
  type ReduceTask,
  type StepGraph,
  valueOf,
} from "../plan/index.ts";
import { type FlatVectors, flatName } from "./flat.ts";
import { type Layout, planLayout } from "./layout.ts";
import type { RankGroups } from "./levels.ts";
import type { Ownership } from "./ownership.ts";
import { bucketPieces, cutPiece } from "./pieces.ts";
import type { TensorRef } from "./program.ts";
import { Spans } from "./spans.ts";

export interface ShardedSumsOptions {
  readonly step: StepGraph;
  readonly vectors: FlatVectors;
  readonly groups: RankGroups;
  readonly rank: number;
  readonly lanes: number;
}

/** Buffers that are filled while the one before is used. */
export const BUFFERS = 2;

/** A gather or a sum of one piece, with its tensors brought together. */
export interface Unit {
  readonly name: string;
  readonly spans: Spans;
  /** Which of the buffers it has. */
  readonly buffer: number;
}

/** @throws INVALID_OPTION where ranks do not share one node, or an update needs whole parameters */
export function checkSharding({ step, groups, vectors }: ShardedSumsOptions): void {
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

/** By piece; undefined where it gathers nothing. */
export function gatherUnits(
  { step, vectors }: ShardedSumsOptions,
  pieces: readonly ComputeTask[],
): (Unit | undefined)[] {
  const gathers = step.tasks.filter(isOfKind("gather")).filter((task) => task.each === MICRO_BATCH);
  const namesOf = ({ inputs }: GatherTask) => inputs.map((name) => valueOf(step, name).of);
  return unitsOf(
    pieces,
    (piece) => gatherOf(piece, gathers),
    (task) => new Spans(vectors.parameters, namesOf(task)),
  );
}

/** By piece; undefined where it sums nothing. */
export function bucketUnits(
  { step, vectors }: ShardedSumsOptions,
  pieces: readonly ComputeTask[],
  reduces: readonly ReduceTask[],
): (Unit | undefined)[] {
  const namesOf = ({ outputs }: ReduceTask) => outputs.map((name) => flatName(step, name));
  return unitsOf(
    pieces,
    (piece) => reduceOf(piece, reduces),
    (task) => new Spans(vectors.gradients, namesOf(task)),
  );
}

/** By piece; buffers take turns. */
function unitsOf<T extends { readonly name: string }>(
  pieces: readonly ComputeTask[],
  taskOf: (piece: ComputeTask) => T | undefined,
  spansOf: (task: T) => Spans,
): (Unit | undefined)[] {
  let count = 0;
  return pieces.map((piece) => {
    const task = taskOf(piece);
    if (task === undefined) return undefined;
    return { name: task.name, spans: spansOf(task), buffer: count++ % BUFFERS };
  });
}

function gatherOf({ inputs }: ComputeTask, gathers: readonly GatherTask[]): GatherTask | undefined {
  return gathers.find(({ outputs }) => outputs.some((name) => inputs.includes(name)));
}

function reduceOf(
  { outputs }: ComputeTask,
  reduces: readonly ReduceTask[],
): ReduceTask | undefined {
  return reduces.find(({ inputs }) => inputs.some((name) => outputs.includes(name)));
}

/** What is summed beside the gradients, and what ranks tell each other: small, and whole on every rank. */
export function wholeLayouts(
  { step, vectors }: ShardedSumsOptions,
  reduces: readonly ReduceTask[],
): { readonly beside: Layout; readonly control: Layout } {
  const rest = reduces.filter((task) => task.each === "step").flatMap(({ outputs }) => outputs);
  const itemsOf = (isControl: boolean) =>
    rest
      .filter((name) => (valueOf(step, name).role === "control") === isControl)
      .map((name) => ({ name, type: valueOf(step, name).type, group: "summed" }));
  return {
    beside: planLayout(itemsOf(false), vectors.gradients.tile),
    control: planLayout(itemsOf(true), 1024),
  };
}

/** Where a gradient lies among those that a piece has just made. */
export function bucketRef(
  buckets: readonly (Unit | undefined)[],
  name: string,
  lane: number,
): TensorRef | undefined {
  for (const unit of buckets) {
    const found = unit?.spans.ref(name, bucketBuffer(unit.buffer, lane));
    if (found !== undefined) return found;
  }
  return undefined;
}

export function unitBuffer(index: number): string {
  return `unit.${index}`;
}

export function bucketBuffer(index: number, lane: number): string {
  return `bucket.${index}.${lane}`;
}

export function besideBuffer(lane: number): string {
  return `beside.${lane}`;
}
