/**
 * Data parallelism: every rank of an axis holds the whole model and its own micro-batches; what is
 * summed over micro-batches is summed over the axis, too.
 */
import { axisOf, type Placement } from "../mesh/index.ts";
import {
  MICRO_BATCH,
  type ReduceTask,
  type StepGraph,
  type StepTask,
  type StepValue,
  valueName,
} from "../plan/index.ts";
import type { Strategy } from "./strategy.ts";

export interface DataOptions {
  /** The axis of the mesh. Default: `data`. */
  readonly axis?: string;
  /** How sums over ranks are combined. Default: `tree`. */
  readonly combination?: ReduceTask["combination"];
}

/** The paces of the ranks: seconds per micro-batch, by rank. */
export const PACES = valueName("control", "paces");
const OWN_PACES = valueName("partial control", "paces");

export function data({ axis = "data", combination = "tree" }: DataOptions = {}): Strategy {
  return {
    name: `data over "${axis}"`,
    rewrite(step, mesh) {
      if (axisOf(mesh, axis).size === 1) return step;
      const told = withPaces(step, mesh.size);
      const tasks = told.tasks.map((task) => overAxis(task, axis, combination));
      return { ...told, values: placedOver(told.values, axis), tasks };
    },
  };
}

/** A task that sums or gathers over micro-batches does so over the axis, too. */
function overAxis(task: StepTask, axis: string, combination: ReduceTask["combination"]): StepTask {
  if (task.kind !== "reduce" && task.kind !== "gather") return task;
  if (!task.axes.includes(MICRO_BATCH)) return task;
  const axes = [...task.axes, axis];
  return task.kind === "gather" ? { ...task, axes } : { ...task, axes, combination };
}

/** A value that is placed along the micro-batches is placed along the axis in the same way. */
function placedOver(values: StepGraph["values"], axis: string): Map<string, StepValue> {
  return new Map(
    [...values].map(([name, value]) => {
      const along = value.placement[MICRO_BATCH];
      if (along === undefined) return [name, value];
      const placement: Placement = { ...value.placement, [axis]: along };
      return [name, { ...value, placement }];
    }),
  );
}

/**
 * Adds the paces of `ranks` ranks to the first sum over micro-batches, unless they are there
 * already.
 */
function withPaces(step: StepGraph, ranks: number): StepGraph {
  const at = step.tasks.findIndex(({ kind }) => kind === "reduce");
  const task = step.tasks[at];
  if (task === undefined || task.kind !== "reduce" || step.values.has(PACES)) return step;
  const type = { dtype: "float32", shape: [ranks] } as const;
  const value = { role: "control", of: "paces", type } as const;
  const values = new Map(step.values)
    .set(OWN_PACES, { ...value, placement: { [MICRO_BATCH]: "partial" } })
    .set(PACES, { ...value, placement: {} });
  const inputs = [...task.inputs, OWN_PACES];
  const tasks = step.tasks.with(at, { ...task, inputs, outputs: [...task.outputs, PACES] });
  return { ...step, values, tasks };
}
