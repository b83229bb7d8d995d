/**
 * Ranks of an axis that compute parts of the same micro-batches have terms of gradients and losses,
 * which are summed over the axis.
 */
import { isShard } from "../mesh/index.ts";
import {
  type ComputeTask,
  MICRO_BATCH,
  type ReduceTask,
  type StepGraph,
  type StepTask,
  valueName,
  valueOf,
} from "../plan/index.ts";
import { isFloat } from "../tensor/index.ts";

/**
 * What the pass makes of parts of a micro-batch, as terms that the ranks of the axis have, and their
 * sums: once in a step, whatever its number of micro-batches is. Gradients of parameters that are
 * divided over the axis have no other terms.
 */
export function withSums(step: StepGraph, pass: ComputeTask, axis: string): StepGraph {
  const values = new Map(step.values);
  const sums: [string, string][] = [];
  const outputs = pass.outputs.map((name) => {
    const value = valueOf(step, name);
    const { role, of, placement, type } = value;
    const isSummed = (role === "gradient" || role === "term") && isFloat(type.dtype);
    const isPart = isShard(placement[axis]);
    if (!isSummed || isPart) return name;
    const part = valueName(`partial ${role}`, of);
    if (part !== name) sums.push([part, name]);
    values.set(part, { ...value, placement: { ...placement, [axis]: "partial" } });
    return part;
  });
  // With one micro-batch, what is there are sums over another axis, or none.
  const sumsPass = ({ axes, inputs }: ReduceTask) =>
    axes.includes(MICRO_BATCH) || inputs.some((name) => pass.outputs.includes(name));
  const tasks = step.tasks.flatMap((task): StepTask[] => {
    if (task === pass) return [{ ...task, outputs }, ...sumOver(axis, sums)];
    if (task.kind !== "reduce" || !sumsPass(task)) return [task];
    return [{ ...task, axes: [...task.axes, axis] }];
  });
  return { ...step, values, tasks };
}

/** Where there is one micro-batch, no sum is there yet. */
function sumOver(axis: string, sums: readonly (readonly [string, string])[]): ReduceTask[] {
  if (sums.length === 0) return [];
  return [
    {
      kind: "reduce",
      name: "gradients",
      each: "step",
      axes: [axis],
      combination: "any",
      inputs: sums.map(([part]) => part),
      outputs: sums.map(([, whole]) => whole),
    },
  ];
}
