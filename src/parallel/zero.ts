/**
 * ZeRO: the ranks of data-parallel axes divide the work and the memory that would otherwise be the
 * same on all of them. After Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training
 * Trillion Parameter Models", 2020. When these strategies are applied, gradients are already summed
 * over the axes.
 */
import { axisOf, type Mesh, type Placement } from "../mesh/index.ts";
import {
  type ComputeTask,
  cutTask,
  cutWhereReady,
  type GatherTask,
  GRADIENT,
  isOfKind,
  MICRO_BATCH,
  phasesOf,
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
import type { Strategy } from "./strategy.ts";

/**
 * ZeRO-1: each rank of the axes updates its shard of the flattened parameters and keeps the
 * optimizer's slots of that shard only. Each rank needs the sum of gradients in that shard only
 * (reduce-scatter); the new parameters go to all ranks (all-gather).
 */
export function zero1(axes: readonly string[]): Strategy {
  return {
    name: `zero stage 1 over ${quoted(axes)}`,
    rewrite: (step, mesh) => {
      const wide = wideAxes(mesh, axes);
      return wide.length === 0 ? step : shardUpdates(step, wide, ["slot", "gradient"]);
    },
  };
}

/**
 * ZeRO-2: in addition to ZeRO-1, no rank holds a whole gradient: while micro-batches are computed,
 * each bucket of gradients goes to the ranks that sum it.
 * @param bucketBytes a bucket is closed when it holds this many bytes
 */
export function zero2(axes: readonly string[], bucketBytes: number): Strategy {
  return {
    name: `zero stage 2 over ${quoted(axes)}`,
    rewrite: (step, mesh) => {
      const wide = wideAxes(mesh, axes);
      const task = step.tasks.find(isGradient);
      if (wide.length === 0 || task === undefined) return step;
      const sharded = shardUpdates(step, wide, ["slot", "gradient"]);
      const lists = bucketsOf(sharded, task, bucketBytes);
      const { step: cut, pieces } = cutWhereReady(sharded, task, lists);
      return reduceEach(cut, pieces);
    },
  };
}

/**
 * ZeRO-3, fully sharded: parameters, too, stay on the ranks that update them. Each unit of
 * parameters is gathered just before it is used, in the forward pass and again in the backward
 * pass, and freed afterwards.
 */
export function zero3(axes: readonly string[]): Strategy {
  return {
    name: `zero stage 3 over ${quoted(axes)}`,
    rewrite: (step, mesh) => {
      const wide = wideAxes(mesh, axes);
      const task = step.tasks.find(isGradient);
      if (wide.length === 0 || task === undefined) return step;
      const sharded = shardUpdates(step, wide, ["slot", "gradient", "parameter"]);
      const { phases, phaseOf } = phasesOf(sharded, task);
      const { step: cut, pieces } = cutTask(sharded, task, (_, index) => phaseOf[index] as number);
      const values = new Map(cut.values);
      const tasks = cut.tasks.flatMap((other): StepTask[] => {
        const at = pieces.indexOf(other as ComputeTask);
        if (at < 0) return [other];
        const used = phases[at]?.parameters.filter((name) => other.inputs.includes(name)) ?? [];
        if (used.length === 0) return [other];
        const gathered = used.map((name) => gatheredName(cut, name, at));
        for (const [index, name] of used.entries()) {
          const value = valueOf(cut, name);
          values.set(gathered[index] as string, { ...value, placement: {} });
        }
        const gather: GatherTask = {
          kind: "gather",
          name: `parameters of piece ${at}`,
          each: MICRO_BATCH,
          axes: wide,
          inputs: used,
          outputs: gathered,
        };
        const inputs = other.inputs.map((name) => gathered[used.indexOf(name)] ?? name);
        return [gather, { ...other, inputs }];
      });
      const gathering = { ...cut, values, tasks };
      const now = tasks.filter(isGradient);
      return reduceEach(gathering, now);
    },
  };
}

/**
 * Divides updates that need whole parameters, such as Muon's, which cost as much as a micro-batch:
 * each rank of the axes updates some of the parameters. All ranks hold all slots, so that any of
 * them can write a checkpoint.
 */
export function sharedUpdates(axes: readonly string[]): Strategy {
  return {
    name: `updates of whole parameters shared out over ${quoted(axes)}`,
    rewrite: (step, mesh) => {
      const wide = wideAxes(mesh, axes);
      const shared = step.tasks.filter((task) => isUpdate(task, "tensor"));
      return wide.length === 0 ? step : shareUpdates(step, shared, wide, ["parameter", "slot"]);
    },
  };
}

function gatheredName(step: StepGraph, name: string, piece: number): string {
  return valueName(`gathered ${piece} parameter`, valueOf(step, name).of);
}

/** Whether a task is the forward and backward pass of a micro-batch, or a piece of it. */
function isGradient(task: StepTask): task is ComputeTask {
  return task.kind === "compute" && task.graph.startsWith(GRADIENT);
}

function isUpdate(task: StepTask, granularity: UpdateTask["granularity"]): task is UpdateTask {
  return task.kind === "update" && task.granularity === granularity;
}

/**
 * Divides elementwise updates among the ranks: the values of these roles that they read and write
 * are sharded.
 */
function shardUpdates(step: StepGraph, axes: readonly string[], roles: readonly Role[]): StepGraph {
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

/**
 * Sums gradients while micro-batches are computed, behind each piece; the other sums are made at
 * the end.
 */
function reduceEach(step: StepGraph, pieces: readonly ComputeTask[]): StepGraph {
  const [whole] = step.tasks.filter(isOfKind("reduce"));
  if (whole === undefined) return step;
  const sumOf = (name: string) => whole.outputs[whole.inputs.indexOf(name)] as string;
  const part = (inputs: readonly string[]): ReduceTask => {
    return { ...whole, inputs, outputs: inputs.map(sumOf) };
  };
  const isSharded = (name: string) => {
    const { role, placement } = valueOf(step, sumOf(name));
    return role === "gradient" && Object.keys(placement).length > 0;
  };
  const tasks = step.tasks.flatMap((task): StepTask[] => {
    if (task === whole) return [part(whole.inputs.filter((name) => !isSharded(name)))];
    const at = pieces.indexOf(task as ComputeTask);
    if (at < 0) return [task];
    const made = task.outputs.filter((name) => whole.inputs.includes(name) && isSharded(name));
    if (made.length === 0) return [task];
    return [task, { ...part(made), name: `gradients of piece ${at}`, each: MICRO_BATCH }];
  });
  return { ...step, tasks };
}

function place(
  step: StepGraph,
  names: readonly string[],
  roles: readonly Role[],
  placement: Placement,
): StepGraph {
  const values = new Map<string, StepValue>(step.values);
  for (const name of names) {
    const value = valueOf(step, name);
    if (roles.includes(value.role)) values.set(name, { ...value, placement });
  }
  return { ...step, values };
}

function wideAxes(mesh: Mesh, axes: readonly string[]): string[] {
  return axes.filter((axis) => axisOf(mesh, axis).size > 1);
}

function quoted(axes: readonly string[]): string {
  return axes.map((axis) => `"${axis}"`).join(" and ");
}
