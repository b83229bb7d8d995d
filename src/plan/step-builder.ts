/** Builds a step. */
import { LockstepError } from "../errors.ts";
import type { Graph } from "../graph/index.ts";
import { type Placement, REPLICATED } from "../mesh/index.ts";
import type { Model, ModelDevices } from "../nn/index.ts";
import type { TensorType } from "../tensor/index.ts";
import {
  MICRO_BATCH,
  type Role,
  type StepGraph,
  type StepTask,
  type StepValue,
  valueName,
} from "./step-graph.ts";

export const SUMMARY = valueName("summary", "step");
/** The placement of a value that has yet to be summed over micro-batches. */
export const PARTIAL: Placement = { [MICRO_BATCH]: "partial" };

export class StepBuilder implements StepGraph {
  readonly values = new Map<string, StepValue>();
  readonly graphs = new Map<string, Graph>();
  readonly tasks: StepTask[] = [];
  readonly name: string;
  readonly microBatches: number;
  declare readonly devices?: ModelDevices;

  constructor({ name, devices }: Pick<Model, "name" | "devices">, microBatches: number) {
    this.name = name;
    this.microBatches = microBatches;
    if (devices !== undefined) this.devices = devices;
  }

  /** Declares a value. `stage` distinguishes values of one role and name. */
  value(role: Role, of: string, type: TensorType, placement = REPLICATED, stage: string = role) {
    const name = valueName(stage, of);
    this.values.set(name, { role, of, type, placement });
    return name;
  }

  /**
   * Declares a value that micro-batches compute and whose sum the step needs. Returns the names
   * before and after the sum, which are the same without micro-batches.
   */
  summed(role: Role, of: string, type: TensorType): readonly [part: string, sum: string] {
    const sum = this.value(role, of, type);
    if (this.microBatches === 1) return [sum, sum];
    return [this.value(role, of, type, PARTIAL, `partial ${role}`), sum];
  }
}

/**
 * The name of the step's value that an input of a graph over the model stands for. @throws
 * INVALID_GRAPH
 */
export function givenName(step: StepBuilder, input: string): string {
  for (const role of ["batch", "parameter", "state", "total"]) {
    if (step.values.has(valueName(role, input))) return valueName(role, input);
  }
  throw new LockstepError(
    "INVALID_GRAPH",
    `No value of the step feeds the model's input "${input}".`,
  );
}
