/**
 * ZeRO: the ranks of data-parallel axes divide the work and the memory that would otherwise be the
 * same on all of them. After Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training
 * Trillion Parameter Models", 2020. When these strategies are applied, gradients are already summed
 * over the axes.
 */
import { axisOf, isFlatShard, type Placement } from "../mesh/index.ts";
import {
  type ComputeTask,
  cutAtUnits,
  cutWhereReady,
  type GatherTask,
  isOfKind,
  isPiece,
  MICRO_BATCH,
  type ReduceTask,
  type Role,
  type StepGraph,
  type StepTask,
  type StepValue,
  type UpdateTask,
  valueName,
  valueOf,
} from "../plan/index.ts";
import { bucketsOf } from "./buckets.ts";
import { checkTotals } from "./first-totals.ts";
import type { Strategy } from "./strategy.ts";
import { cutLastParts, cutOtherParts, lastPieces } from "./zero-stages.ts";

/**
 * ZeRO-1: each rank of the axes updates its shard of the flattened parameters and keeps the
 * optimizer's slots of that shard only. Each rank needs the sum of gradients in that shard only
 * (reduce-scatter); the new parameters go to all ranks (all-gather).
 */
export function zero1(axes: readonly string[]): Strategy {
  return overWide("zero stage 1", axes, (step, wide) =>
    shardUpdates(step, wide, ["slot", "gradient"]),
  );
}

/**
 * ZeRO-2: in addition to ZeRO-1, no rank holds a whole gradient: while micro-batches are computed,
 * each bucket of gradients goes to the ranks that sum it.
 * @param bucketBytes a bucket is closed when it holds this many bytes
 */
export function zero2(axes: readonly string[], bucketBytes: number): Strategy {
  return overWide("zero stage 2", axes, (step, wide) => {
    if (step.pipeline !== undefined) return reduceEach(cutLastParts(step, bucketBytes));
    const sharded = shardUpdates(step, wide, ["slot", "gradient"]);
    const cut = cutWhole(sharded, (task) => {
      return cutWhereReady(sharded, task, bucketsOf(sharded, [task], bucketBytes)).step;
    });
    return reduceEach(cut);
  });
}

/**
 * ZeRO-3, fully sharded: parameters, too, stay on the ranks that update them. Each unit of
 * parameters is gathered just before it is used, in the forward pass and again in the backward
 * pass, and freed afterwards.
 * @param bucketBytes as with ZeRO-2, for a pass that is in stages. Default: no limit
 */
export function zero3(axes: readonly string[], bucketBytes = Number.POSITIVE_INFINITY): Strategy {
  return overWide("zero stage 3", axes, (step, wide) => {
    checkTotals(step, "ZeRO-3");
    if (step.pipeline !== undefined) {
      const cut = cutLastParts(cutOtherParts(step), bucketBytes);
      return reduceEach(gatherEach(cut, [...wide, step.pipeline.axis]));
    }
    const sharded = shardUpdates(step, wide, ["slot", "gradient", "parameter"]);
    const cut = cutWhole(sharded, (task) => cutAtUnits(sharded, task).step);
    return reduceEach(gatherEach(cut, wide));
  });
}

/**
 * Divides updates that need whole parameters, such as Muon's, which cost as much as a micro-batch:
 * each rank of the axes updates some of the parameters. All ranks hold all slots, so that any of
 * them can write a checkpoint.
 */
export function sharedUpdates(axes: readonly string[]): Strategy {
  return overWide("updates of whole parameters shared out", axes, (step, wide) => {
    const shared = step.tasks.filter((task) => isUpdate(task, "tensor"));
    return shareUpdates(step, shared, wide, ["parameter", "slot"]);
  });
}

/** A strategy over those axes that have several ranks. Without any, the step stays as it is. */
function overWide(
  name: string,
  axes: readonly string[],
  rewrite: (step: StepGraph, wide: readonly string[]) => StepGraph,
): Strategy {
  return {
    name: `${name} over ${axes.map((axis) => `"${axis}"`).join(" and ")}`,
    rewrite: (step, mesh) => {
      const wide = axes.filter((axis) => axisOf(mesh, axis).size > 1);
      return wide.length === 0 ? step : rewrite(step, wide);
    },
  };
}

/** Gathers the sharded parameters of each piece directly before it. */
function gatherEach(step: StepGraph, axes: readonly string[]): StepGraph {
  const values = new Map(step.values);
  let at = -1;
  const tasks = step.tasks.flatMap((piece): StepTask[] => {
    if (!isPiece(piece)) return [piece];
    at += 1;
    const used = piece.inputs.filter((name) => isFlat(valueOf(step, name), "parameter"));
    if (used.length === 0) return [piece];
    const gathered = used.map((name) => {
      const value = valueOf(step, name);
      const own = valueName(`gathered ${at} parameter`, value.of);
      // Ranks that divide the model gather what they have of it.
      const rest = Object.entries(value.placement).filter(([axis]) => !axes.includes(axis));
      values.set(own, { ...value, placement: Object.fromEntries(rest) });
      return own;
    });
    const gather: GatherTask = {
      kind: "gather",
      name: `parameters of piece ${at}`,
      each: MICRO_BATCH,
      axes,
      inputs: used,
      outputs: gathered,
    };
    const inputs = piece.inputs.map((name) => gathered[used.indexOf(name)] ?? name);
    return [gather, { ...piece, inputs }];
  });
  return { ...step, values, tasks };
}

function isUpdate(task: StepTask, granularity: UpdateTask["granularity"]): task is UpdateTask {
  return task.kind === "update" && task.granularity === granularity;
}

/**
 * Divides elementwise updates among the ranks: the values of these roles that they read and write
 * are sharded.
 */
export function shardUpdates(
  step: StepGraph,
  axes: readonly string[],
  roles: readonly Role[],
): StepGraph {
  const flat = Object.fromEntries(axes.map((axis) => [axis, { shard: "flat" as const }]));
  const shared = step.tasks.filter((task) => isUpdate(task, "element"));
  const touched = shared.flatMap(({ inputs, outputs }) => [...inputs, ...outputs]);
  const gathered: Role[] = roles.includes("parameter") ? [] : ["parameter"];
  return place(shareUpdates(step, shared, axes, gathered), touched, roles, flat);
}

/** Each rank performs a part of these updates; their results of the given roles go to all ranks. */
function shareUpdates(
  step: StepGraph,
  updates: readonly UpdateTask[],
  axes: readonly string[],
  roles: readonly Role[],
): StepGraph {
  const values = new Map(step.values);
  const tasks = step.tasks.flatMap((task): StepTask[] => {
    if (!updates.includes(task as UpdateTask)) return [task];
    const shared = { ...(task as UpdateTask), axes };
    const parts = task.outputs.filter((name) => roles.includes(valueOf(step, name).role));
    if (parts.length === 0) return [shared];
    for (const name of parts) values.set(`${name}, whole`, valueOf(step, name));
    const gather: GatherTask = {
      kind: "gather",
      name: `${task.name}: to all`,
      each: "step",
      axes,
      inputs: parts,
      outputs: parts.map((name) => `${name}, whole`),
    };
    return [shared, gather];
  });
  return { ...step, values, tasks };
}

/** A pass that is in pieces already stays so. */
function cutWhole(step: StepGraph, cut: (task: ComputeTask) => StepGraph): StepGraph {
  const pieces = step.tasks.filter(isPiece);
  return pieces.length === 1 ? cut(pieces[0] as ComputeTask) : step;
}

function isFlat({ role, placement }: StepValue, wanted: Role): boolean {
  return role === wanted && isFlatShard(placement);
}

/**
 * Sums gradients while micro-batches are computed, behind each piece, or each of the last part of its
 * stage; the other sums are made at the end.
 */
function reduceEach(step: StepGraph): StepGraph {
  const pieces = step.tasks.filter(isPiece);
  const reducing = step.pipeline === undefined ? pieces : lastPieces(step);
  const [whole] = step.tasks.filter(isOfKind("reduce"));
  if (whole === undefined) return step;
  const sumOf = (name: string) => whole.outputs[whole.inputs.indexOf(name)] as string;
  const part = (inputs: readonly string[]): ReduceTask => {
    return { ...whole, inputs, outputs: inputs.map(sumOf) };
  };
  const made = new Set(reducing.flatMap(({ outputs }) => outputs));
  const isPart = (name: string) => made.has(name) && isFlat(valueOf(step, sumOf(name)), "gradient");
  const tasks = step.tasks.flatMap((task): StepTask[] => {
    if (task === whole) return [part(whole.inputs.filter((name) => !isPart(name)))];
    const at = pieces.indexOf(task as ComputeTask);
    if (at < 0) return [task];
    const own = task.outputs.filter((name) => whole.inputs.includes(name) && isPart(name));
    if (own.length === 0) return [task];
    return [task, { ...part(own), name: `gradients of piece ${at}`, each: MICRO_BATCH }];
  });
  return { ...step, tasks };
}

/** What values are on other axes stays. */
function place(
  step: StepGraph,
  names: readonly string[],
  roles: readonly Role[],
  placement: Placement,
): StepGraph {
  const values = new Map<string, StepValue>(step.values);
  for (const name of names) {
    const value = valueOf(step, name);
    if (!roles.includes(value.role)) continue;
    // Axes that divide the model may have placed it already.
    values.set(name, { ...value, placement: { ...value.placement, ...placement } });
  }
  return { ...step, values };
}
