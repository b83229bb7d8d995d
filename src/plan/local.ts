/**
 * The step of the ranks that have one part of the model: values that are sharded over the axes that
 * divide the model have the shapes of a part, and nothing else is said of these axes.
 */
import {
  isSampleAxis,
  isShard,
  type Mesh,
  modelAxes,
  type Placement,
  shapeOnAxis,
} from "../mesh/index.ts";
import type { TensorType } from "../tensor/index.ts";
import type { StepGraph, StepValue } from "./step-graph.ts";

/** What a rank holds of a value, as far as axes that divide the model go. */
export function partOfReplica(type: TensorType, placement: Placement, mesh: Mesh): TensorType {
  return mesh.axes.reduce((part, { name, size }) => {
    if (isSampleAxis(name)) return part;
    return { ...part, shape: shapeOnAxis(part.shape, placement[name], size) };
  }, type);
}

export function localStep(step: StepGraph, mesh: Mesh): StepGraph {
  const values = new Map<string, StepValue>(
    [...step.values].map(([name, value]) => {
      const type = partOfReplica(value.type, value.placement, mesh);
      const axes = modelAxes(mesh);
      const partOver = axes.filter((axis) => isShard(value.placement[axis]));
      const rest = Object.entries(value.placement).filter(([axis]) => !axes.includes(axis));
      return [name, { ...value, type, placement: Object.fromEntries(rest), partOver }];
    }),
  );
  return { ...step, values };
}
