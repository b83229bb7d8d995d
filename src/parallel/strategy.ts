/**
 * A strategy rewrites the step of all ranks. It is pure and printable, and can be tested without a
 * process, an engine or a clock. Strategies compose: each rewrites the result of the one before it.
 */
import type { Mesh } from "../mesh/index.ts";
import { type StepGraph, validateStep } from "../plan/index.ts";

export interface Strategy {
  /** The name that people read, such as `data over "data"`. */
  readonly name: string;
  /** @throws INVALID_OPTION if the mesh or the step does not allow the strategy */
  rewrite(step: StepGraph, mesh: Mesh): StepGraph;
}

export function applyStrategies(
  strategies: readonly Strategy[],
  step: StepGraph,
  mesh: Mesh,
): StepGraph {
  return validateStep(strategies.reduce((current, { rewrite }) => rewrite(current, mesh), step));
}
