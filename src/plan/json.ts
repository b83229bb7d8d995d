/** Converts a step to JSON and back, and computes its hash. */
import { createHash } from "node:crypto";
import { LockstepError } from "../errors.ts";
import {
  type GraphJson,
  graphFromJson,
  graphToJson,
  type TypeJson,
  typeFromJson,
  typeToJson,
} from "../graph/index.ts";
import type { ModelDevices } from "../nn/index.ts";
import {
  type Pipeline,
  type StepGraph,
  type StepTask,
  type StepValue,
  validateStep,
} from "./step-graph.ts";

/** The version of the form; it changes with every change of the form. */
const FORMAT = "lockstep-step-6";

export interface StepJson {
  readonly format: string;
  readonly name: string;
  readonly microBatches: number;
  readonly values: Readonly<Record<string, Omit<StepValue, "type"> & { readonly type: TypeJson }>>;
  readonly graphs: Readonly<Record<string, GraphJson>>;
  readonly tasks: readonly StepTask[];
  readonly pipeline?: Pipeline;
  readonly devices?: ModelDevices;
}

export function stepToJson(step: StepGraph): StepJson {
  const { name, microBatches, values, graphs, tasks, pipeline, devices } = step;
  return {
    format: FORMAT,
    name,
    microBatches,
    values: Object.fromEntries(
      [...values].map(([key, value]) => [key, { ...value, type: typeToJson(value.type) }]),
    ),
    graphs: Object.fromEntries([...graphs].map(([key, graph]) => [key, graphToJson(graph)])),
    tasks,
    ...(pipeline && { pipeline }),
    ...(devices && { devices }),
  };
}

/** @throws INVALID_GRAPH when the JSON has a different version, or is invalid in itself */
export function stepFromJson(json: StepJson): StepGraph {
  if (json.format !== FORMAT) {
    throw new LockstepError(
      "INVALID_GRAPH",
      `The step is written as ${JSON.stringify(json.format)}; this version reads "${FORMAT}".`,
    );
  }
  const { name, microBatches, tasks, pipeline, devices } = json;
  return validateStep({
    name,
    microBatches,
    values: new Map(
      Object.entries(json.values).map(([key, value]) => {
        return [key, { ...value, type: typeFromJson(value.type) }];
      }),
    ),
    graphs: new Map(Object.entries(json.graphs).map(([key, graph]) => [key, graphFromJson(graph)])),
    tasks,
    ...(pipeline && { pipeline }),
    ...(devices && { devices }),
  });
}

/** The SHA-256 of a whole step, in hexadecimal. */
export function hashStep(step: StepGraph): string {
  return createHash("sha256")
    .update(JSON.stringify(stepToJson(step)))
    .digest("hex");
}
