/**
 * ZeRO: the ranks of data-parallel axes share out what they would all do and hold alike. After Rajbhandari et al., "ZeRO: Memory
 * Optimizations Toward Training Trillion Parameter Models", 2020.
 */
import { axisOf, type Mesh, type Placement } from "../mesh/index.ts";
import {
  type GatherTask,
  type Role,
  type StepGraph,
  type UpdateTask,
  valueOf,
} from "../plan/index.ts";
import type { Strategy } from "./strategy.ts";

/**
 * Stage 1: each rank of the axes updates its part of the flattened parameters, and keeps the optimizer's slots of that part alone. The sum
 * of gradients is needed in that part only (reduce-scatter); new parameters go to all (all-gather).
 * @param axes gradients are summed over them already
 */
export function zero1(axes: readonly string[]): Strategy {
  return {
    name: `zero stage 1 over ${quoted(axes)}`,
    rewrite: (step, mesh) => {
      const wide = wideAxes(mesh, axes);
      if (wide.length === 0) return step;
      const flat = Object.fromEntries(wide.map((axis) => [axis, { shard: "flat" as const }]));
      const shared = step.tasks.filter((task) => isUpdate(task, "element"));
      const touched = shared.flatMap(({ inputs, outputs }) => [...inputs, ...outputs]);
      return place(
        shareUpdates(step, shared, wide, ["parameter"]),
        touched,
        ["slot", "gradient"],
        flat,
      );
    },
  };
}

/**
 * Updates that need whole parameters (Muon's) cost as much as a micro-batch: each rank of the axes makes those of some
 * parameters. All have all slots, so that any of them can write a checkpoint.
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

function isUpdate(
  task: StepGraph["tasks"][number],
  granularity: UpdateTask["granularity"],
): task is UpdateTask {
  return task.kind === "update" && task.granularity === granularity;
}

/** Each rank makes a part of these updates; what they make of the given roles goes to all. */
function shareUpdates(
  step: StepGraph,
  updates: readonly UpdateTask[],
  axes: readonly string[],
  roles: readonly Role[],
): StepGraph {
  const values = new Map(step.values);
  const tasks = step.tasks.flatMap((task) => {
    if (!updates.includes(task as UpdateTask)) return [task];
    const parts = task.outputs.filter((name) => roles.includes(valueOf(step, name).role));
    const gather: GatherTask = {
      kind: "gather",
      name: `${task.name}: to all`,
      axes,
      inputs: parts,
      outputs: parts.map((name) => `${name}, whole`),
    };
    for (const name of parts) values.set(`${name}, whole`, valueOf(step, name));
    return [{ ...(task as UpdateTask), axes }, gather];
  });
  return { ...step, values, tasks };
}

function place(
  step: StepGraph,
  names: readonly string[],
  roles: readonly Role[],
  placement: Placement,
): StepGraph {
  const values = new Map(step.values);
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
