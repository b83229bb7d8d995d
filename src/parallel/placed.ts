/** Parameters that ranks of an axis divide, and what is held as they are: gradients and slots. */
import { assert } from "../errors.ts";
import type { Graph } from "../graph/index.ts";
import { type AxisPlacement, isShard, type Placement } from "../mesh/index.ts";
import {
  type ComputeTask,
  isOfKind,
  type StepGraph,
  type StepValue,
  valueName,
  valueOf,
} from "../plan/index.ts";
import { sameShape } from "../tensor/index.ts";

/** The value of the step that an input of the pass stands for. */
export function valueOfInput(step: StepGraph, pass: ComputeTask, input: string): string {
  const { inputs } = step.graphs.get(pass.graph) as Graph;
  return pass.inputs[inputs.indexOf(input)] as string;
}

/** Muon's update needs whole matrices. */
export function isUpdatedWhole(step: StepGraph, parameter: string): boolean {
  const name = valueName("parameter", parameter);
  return step.tasks
    .filter(isOfKind("update"))
    .some(({ granularity, inputs }) => granularity === "tensor" && inputs.includes(name));
}

/** What belongs to a parameter is placed as it is. */
export function placedValues(
  step: StepGraph,
  placed: ReadonlyMap<string, AxisPlacement | undefined>,
  axis: string,
): Map<string, StepValue> {
  const placementOf = (parameter: string) => placed.get(valueName("parameter", parameter));
  const parameters = [...step.values.values()].filter(({ role }) => role === "parameter");
  const ofSlots = new Map<string, StepValue>();
  for (const task of step.tasks.filter(isOfKind("update"))) {
    let parameter: StepValue | undefined;
    for (const name of task.inputs) {
      const value = valueOf(step, name);
      if (value.role === "parameter") parameter = value;
      if (value.role === "slot" && parameter !== undefined) ofSlots.set(value.of, parameter);
    }
  }
  const owners = new Map(parameters.map((value) => [value.of, value]));
  return new Map(
    [...step.values].map(([name, value]) => {
      const owner = value.role === "slot" ? ofSlots.get(value.of) : owners.get(value.of);
      const on = owner && placementOf(owner.of);
      if (owner === undefined || !isShard(on)) return [name, value];
      assert(
        sameShape(owner.type.shape, value.type.shape),
        `"${name}" is divided as its parameter`,
      );
      const placement: Placement = { ...value.placement, [axis]: on };
      return [name, { ...value, placement }];
    }),
  );
}
