/**
 * Groups parameters into units that are gathered together, and divides a forward and backward pass
 * into phases: in each phase, one unit, or a few small ones, are gathered. After the wrapping of
 * modules in Zhao et al., "PyTorch FSDP", VLDB 2023; here, units are derived from parameter names.
 */
import { byteLength } from "../tensor/index.ts";
import { type Cut, cutTask } from "./cut.ts";
import { type ComputeTask, type StepGraph, valueOf } from "./step-graph.ts";

export interface Phases {
  /** By phase: the names of the parameter values that are gathered in it. */
  readonly phases: readonly (readonly string[])[];
  /** The phase of each node of the task's graph, by the index of the node. */
  readonly phaseOf: readonly number[];
}

/**
 * The unit of a parameter: `blocks.3` for `blocks.3.attention.qkv.weight`; for a name without a
 * number, all but its last part.
 */
export function unitOf(parameter: string): string {
  const numbered = /^(?:[^.]+\.)*?\d+(?=\.)/.exec(parameter)?.[0];
  if (numbered !== undefined) return numbered;
  const words = parameter.split(".");
  return words.length === 1 ? parameter : words.slice(0, -1).join(".");
}

export interface Units {
  /** The unit of each input of the graph that is a parameter. */
  readonly unitBy: ReadonlyMap<string, string>;
  /** Names of values, by unit. */
  readonly parameters: ReadonlyMap<string, readonly string[]>;
  bytesOf(units: Iterable<string>): number;
}

export function unitsOf(step: StepGraph, task: ComputeTask): Units {
  const units = new Map<string, string[]>();
  const bytes = new Map<string, number>();
  const unitBy = new Map<string, string>();
  for (const [index, input] of (step.graphs.get(task.graph)?.inputs ?? []).entries()) {
    const name = task.inputs[index] as string;
    const { role, of, type } = valueOf(step, name);
    if (role !== "parameter") continue;
    const unit = unitOf(of);
    units.set(unit, [...(units.get(unit) ?? []), name]);
    bytes.set(unit, (bytes.get(unit) ?? 0) + byteLength(type));
    unitBy.set(input, unit);
  }
  const bytesOf = (names: Iterable<string>) =>
    [...names].reduce((sum, name) => sum + (bytes.get(name) ?? 0), 0);
  return { unitBy, parameters: units, bytesOf };
}

/**
 * Walks the nodes in order. A new phase begins at a node that needs a unit that is not gathered.
 */
export function phasesOf(step: StepGraph, task: ComputeTask): Phases {
  const graph = step.graphs.get(task.graph);
  const { unitBy, parameters, bytesOf } = unitsOf(step, task);
  const largest = Math.max(0, ...[...parameters.keys()].map((unit) => bytesOf([unit])));
  const phases: Set<string>[] = [new Set()];
  const phaseOf = (graph?.nodes ?? []).map(({ inputs }) => {
    const needed = new Set(inputs.flatMap((input) => unitBy.get(input) ?? []));
    const current = phases.at(-1) as Set<string>;
    if ([...needed].some((unit) => !current.has(unit))) {
      const together = new Set([...current, ...needed]);
      // Small units share a phase.
      if (bytesOf(together) <= largest || current.size === 0) phases[phases.length - 1] = together;
      else phases.push(needed);
    }
    return phases.length - 1;
  });
  return {
    phases: phases.map((names) => [...names].flatMap((name) => parameters.get(name) ?? [])),
    phaseOf,
  };
}

/** Cuts a pass into a piece for each of its phases. */
export function cutAtUnits(step: StepGraph, task: ComputeTask): Cut {
  const { phaseOf } = phasesOf(step, task);
  return cutTask(step, task, (_, index) => phaseOf[index] as number);
}
