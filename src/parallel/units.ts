/**
 * Units of parameters that are gathered together, and the phases of a forward and backward pass: in each phase one unit, or a few small
 * ones, are at hand. After the wrapping of modules in Zhao et al., "PyTorch FSDP", VLDB 2023; here units are read off parameter names.
 */
import { type ComputeTask, type StepGraph, valueOf } from "../plan/index.ts";
import { byteLength } from "../tensor/index.ts";

export interface Phase {
  /** Names of values: the parameters that are at hand. */
  readonly parameters: readonly string[];
}

export interface Phases {
  readonly phases: readonly Phase[];
  /** The phase of each node of the task's graph, by its place. */
  readonly phaseOf: readonly number[];
}

/** `blocks.3` of `blocks.3.attention.qkv.weight`; without a number, all but the last word. */
export function unitOf(parameter: string): string {
  const numbered = /^(?:[^.]+\.)*?\d+(?=\.)/.exec(parameter)?.[0];
  if (numbered !== undefined) return numbered;
  const words = parameter.split(".");
  return words.length === 1 ? parameter : words.slice(0, -1).join(".");
}

/** Walks the nodes in order; a phase begins where a unit is needed that is not at hand. */
export function phasesOf(step: StepGraph, task: ComputeTask): Phases {
  const graph = step.graphs.get(task.graph);
  const valueBy = new Map(
    task.graphInputs.map((name, index) => [name, task.inputs[index] as string]),
  );
  const units = new Map<string, { readonly parameters: string[]; bytes: number }>();
  const unitBy = new Map<string, string>();
  for (const [input, name] of valueBy) {
    const { role, of, type } = valueOf(step, name);
    if (role !== "parameter") continue;
    const unit = units.get(unitOf(of)) ?? { parameters: [], bytes: 0 };
    unit.parameters.push(name);
    unit.bytes += byteLength(type);
    units.set(unitOf(of), unit);
    unitBy.set(input, unitOf(of));
  }
  const largest = Math.max(0, ...[...units.values()].map(({ bytes }) => bytes));
  const bytesOf = (names: ReadonlySet<string>) =>
    [...names].reduce((sum, name) => sum + (units.get(name)?.bytes ?? 0), 0);
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
    phases: phases.map((names) => {
      return { parameters: [...names].flatMap((name) => units.get(name)?.parameters ?? []) };
    }),
    phaseOf,
  };
}
