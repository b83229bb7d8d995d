/** Prints a step as text, one line for each task, so that people see what a strategy did. */
import { formatPlacement } from "../mesh/index.ts";
import { bytesOf, type StepGraph, type StepTask, type StepValue, valueOf } from "./step-graph.ts";

/**
 * ```
 * gradients        for each micro-batch, 412 nodes
 * bucket 1 of 2    sum over micro-batch and data (tree): 14 values, 10.4 MB, replicated
 * decide           commit or abort
 * ```
 */
export function describeStep(step: StepGraph): string[] {
  const width = Math.max(...step.tasks.map(({ name }) => name.length));
  return step.tasks.map((task) => `${task.name.padEnd(width)}  ${describeTask(step, task)}`);
}

function describeTask(step: StepGraph, task: StepTask): string {
  switch (task.kind) {
    case "compute": {
      const nodes = step.graphs.get(task.graph)?.nodes.length ?? 0;
      return `${task.each === "step" ? "once" : "for each micro-batch"}, ${nodes} nodes`;
    }
    case "reduce":
      return `sum over ${list(task.axes)} (${task.combination}): ${describeValues(step, task.outputs)}`;
    case "gather":
      return `to all of ${list(task.axes)}: ${describeValues(step, task.inputs)}`;
    case "exchange":
      return `for each micro-batch, between the ranks of ${task.axis}: ${describeValues(step, task.inputs)}`;
    case "norm":
      return task.clip === undefined ? "loss, norm" : `loss, norm, clipped to ${task.clip}`;
    case "decide":
      return task.outcomes.join(" or ");
    case "average":
      return `divided by ${task.divisor}: ${describeValues(step, task.outputs)}`;
    case "update": {
      const shared = task.axes.length === 0 ? "" : `, shared out over ${list(task.axes)}`;
      const twice = task.buddies === undefined ? "" : ", and by a buddy on another node";
      return `${task.granularity === "element" ? "by element" : "by tensor"}${shared}${twice}: ${describeValues(step, task.outputs)}`;
    }
  }
}

/** Says how many values these are, how large they are, and how they are placed. */
function describeValues(step: StepGraph, names: readonly string[]): string {
  const values = names.map((name) => valueOf(step, name));
  const bytes = bytesOf(step, names);
  const placements = [...new Set(values.map(formatPlace))];
  return `${names.length} value${names.length === 1 ? "" : "s"}, ${size(bytes)}, ${list(placements)}`;
}

function formatPlace({ placement, space }: StepValue): string {
  return `${formatPlacement(placement)}${space === undefined ? "" : ` on ${space}`}`;
}

function size(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

function list(words: readonly string[]): string {
  return words.join(" and ");
}
