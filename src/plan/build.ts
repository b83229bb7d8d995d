/** Builds the step of one process from a model and an optimizer. Strategies start from it. */
import { differentiate } from "../autodiff/index.ts";
import { assert } from "../errors.ts";
import { typeOf } from "../graph/index.ts";
import { REPLICATED } from "../mesh/index.ts";
import type { Model } from "../nn/index.ts";
import type { Optimizer } from "../optimizer/index.ts";
import { isFloat, type TensorType } from "../tensor/index.ts";
import { withRings } from "./attentions.ts";
import type { BatchSums } from "./batch/batch-sums.ts";
import { planLoss } from "./batch/loss.ts";
import { fieldsOf } from "./batch/model-batch.ts";
import { givenName, PARTIAL, StepBuilder } from "./step-builder.ts";
import {
  MICRO_BATCH,
  type Role,
  type StepGraph,
  type StepTask,
  type StepValue,
  validateStep,
  valueName,
} from "./step-graph.ts";
import { addTotals } from "./totals.ts";
import { updatesOf } from "./updates.ts";

export interface StepOptions {
  /** The model in `train` mode, built for one micro-batch. */
  readonly model: Model;
  readonly optimizer: Optimizer;
  /** The number of micro-batches of a step, on all ranks together. Default: 1. */
  readonly microBatches?: number | undefined;
  /** The largest global norm of the gradient. */
  readonly clip?: number | undefined;
  /**
   * `ring`: attention that is found in the model becomes one node, which ranks can divide by keys and
   * no engine runs whole. Default: `auto`, it stays as it is written.
   */
  readonly attention?: "ring" | "auto" | undefined;
}

/** The name of the graph that computes loss and gradients of a micro-batch. */
export const GRADIENT = "gradient";

/**
 * @throws INVALID_OPTION if nothing is trained, a parameter is not a float, no rule selects a
 * parameter, or the loss cannot be computed from micro-batches; NO_GRADIENT
 */
export function buildStep(options: StepOptions): StepGraph {
  const { model, microBatches = 1 } = options;
  const step = new StepBuilder(model, microBatches);
  const loss = planLoss(model, microBatches);
  addGiven(step, model);
  addTotals(step, loss);
  addGradient(step, model, loss, options.attention === "ring");
  const updates = updatesOf(step, model.parameters, options.optimizer);
  addNorm(step, model, loss, options.clip);
  for (const task of averages(step, model)) step.tasks.push(task);
  for (const task of updates) step.tasks.push(task);
  return validateStep(step);
}

function addGiven(step: StepBuilder, model: Model): void {
  for (const name of fieldsOf(model)) {
    const { dtype, shape } = typeOf(model.graph, name);
    const [rows = 1, ...rest] = shape;
    const type = { dtype, shape: [rows * step.microBatches, ...rest] };
    step.value("batch", name, type, { [MICRO_BATCH]: { shard: 0 } });
  }
  for (const { name, type } of model.parameters) step.value("parameter", name, type);
  for (const { name, type } of model.states) step.value("state", name, type);
}

/**
 * The forward and backward pass of a micro-batch: from it come the terms of the loss, the next
 * states and all gradients, but no other outputs of the model.
 */
function addGradient(step: StepBuilder, model: Model, loss: BatchSums, inRings: boolean): void {
  const names = model.parameters.map(({ name }) => name);
  const objective = loss.terms.find(({ trained }) => trained) ?? loss.terms[0];
  assert(objective !== undefined, "a loss has a term");
  const own = inRings ? withRings(loss.graph, names) : loss.graph;
  const forward = { ...own, name: `${model.name} gradient` };
  const { graph, gradients } = differentiate(forward, objective.output, names);
  step.graphs.set(GRADIENT, graph);
  const outputs = new Map<string, string>();
  const sums: [string, string][] = [];
  const sum = (output: string, role: Role, of: string, type: TensorType) => {
    const [part, whole] = step.summed(role, of, type);
    outputs.set(output, part);
    if (part !== whole) sums.push([part, whole]);
  };
  for (const [index, { output, type }] of loss.terms.entries())
    sum(output, "term", `${index}`, type);
  for (const { name, next, type } of model.states) {
    // Float states are averaged over micro-batches; of counters, the value of a rank's first
    // micro-batch is taken.
    if (step.microBatches > 1 && isFloat(type.dtype)) {
      const part = step.value("state", name, type, PARTIAL, "partial state");
      sums.push([part, step.value("state", name, type, REPLICATED, "state sum")]);
      outputs.set(next, part);
    } else outputs.set(next, step.value("state", name, type, REPLICATED, "next state"));
  }
  for (const { name, type } of model.parameters) {
    sum(gradients.get(name) as string, "gradient", name, type);
  }
  if (step.microBatches > 1) {
    const type: TensorType = { dtype: "float32", shape: [] };
    const [own, all] = step.summed("control", "stop", type);
    sums.push([own, all]);
  }
  step.tasks.push({
    kind: "compute",
    name: "gradients",
    graph: GRADIENT,
    each: MICRO_BATCH,
    inputs: graph.inputs.map((name) => givenName(step, name)),
    outputs: graph.outputs.map((name) => outputs.get(name) as string),
  });
  if (sums.length === 0) return;
  step.tasks.push({
    kind: "reduce",
    name: "gradients",
    each: "step",
    axes: [MICRO_BATCH],
    combination: "tree",
    inputs: sums.map(([part]) => part),
    outputs: sums.map(([, whole]) => whole),
  });
}

function addNorm(
  step: StepBuilder,
  { parameters }: Model,
  { terms, tail, counts }: BatchSums,
  clip: number | undefined,
): void {
  const summary = step.value("summary", "step", { dtype: "float32", shape: [4 + counts.length] });
  if (tail !== undefined) step.graphs.set("loss of the batch", tail);
  const specs = terms.map(({ factor, trained }, index) => {
    return { value: valueName("term", `${index}`), factor, trained };
  });
  step.tasks.push(
    {
      kind: "norm",
      name: "loss and norm",
      terms: specs,
      tail: tail === undefined ? undefined : "loss of the batch",
      counts,
      clip,
      inputs: [
        ...parameters.map(({ name }) => valueName("gradient", name)),
        ...specs.map(({ value }) => value),
      ],
      outputs: [summary],
    },
    {
      kind: "decide",
      name: "decide",
      outcomes: ["commit", "abort"],
      inputs: [summary],
      outputs: [],
    },
  );
}

function averages(step: StepBuilder, { states }: Model): StepTask[] {
  const names = states
    .map(({ name }) => name)
    .filter((of) => step.values.has(valueName("state sum", of)));
  if (names.length === 0) return [];
  const next = names.map((of) => {
    const { type } = step.values.get(valueName("state sum", of)) as StepValue;
    return step.value("state", of, type, REPLICATED, "next state");
  });
  const inputs = names.map((of) => valueName("state sum", of));
  const divisor = step.microBatches;
  return [{ kind: "average", name: "states", divisor, inputs, outputs: next }];
}
