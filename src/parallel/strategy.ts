/**
 * A strategy rewrites the step of all ranks: pure, printable, testable without a process, an engine or a clock. Strategies
 * compose: each sees what the one before it made.
 */
import type { Mesh } from "../mesh/index.ts";
import { type StepGraph, validateStep } from "../plan/index.ts";

export interface Strategy {
  /** As people read it: `data over "data"`. */
  readonly name: string;
  /** @throws INVALID_OPTION where the mesh or the step does not allow it */
  rewrite(step: StepGraph, mesh: Mesh): StepGraph;
}

export function applyStrategies(
  strategies: readonly Strategy[],
  step: StepGraph,
  mesh: Mesh,
): StepGraph {
  return validateStep(strategies.reduce((current, { rewrite }) => rewrite(current, mesh), step));
}
