/** The step of one process, from a model and an optimizer: what strategies begin with. */
import { LockstepError } from "../errors.ts";
import { type Graph, typeOf } from "../graph/index.ts";
import { type Placement, REPLICATED } from "../mesh/index.ts";
import type { Model } from "../nn/index.ts";
import { isSelected, type Optimizer, type ParameterInfo, updateType } from "../optimizer/index.ts";
import { isFloat, type TensorType } from "../tensor/index.ts";
import { type BatchSums, fieldsOf } from "./batch/batch-sums.ts";
import { planLoss } from "./batch/loss.ts";
import { gradientGraph } from "./gradient.ts";
import {
  MICRO_BATCH,
  type Role,
  type StepGraph,
  type StepTask,
  type StepValue,
  type UpdateTask,
  validateStep,
  valueName,
} from "./step-graph.ts";
import { partTotals, totalsWidth, wholeTotals } from "./totals.ts";

export interface StepOptions {
  /** Built for one micro-batch, to train. */
  readonly model: Model;
  readonly optimizer: Optimizer;
  /** Of the whole step, on all ranks together. Default: 1. */
  readonly microBatches?: number | undefined;
  /** The largest global norm of the gradient. */
  readonly clip?: number | undefined;
}

/** The graph that computes loss and gradients of a micro-batch. */
export const GRADIENT = "gradient";
/** A wish to stop, of any rank. */
export const STOP = valueName("control", "stop");
export const SUMMARY = valueName("summary", "step");

const PARTIAL: Placement = { [MICRO_BATCH]: "partial" };

/**
 * @throws INVALID_OPTION where there is nothing to train, a parameter is not a float, no rule selects a parameter, or the loss cannot be
 * made from micro-batches; NO_GRADIENT
 */
export function buildStep(options: StepOptions): StepGraph {
  const { model, microBatches = 1 } = options;
  const step = new StepBuilder(model.name, microBatches);
  const loss = planLoss(model, microBatches);
  addGiven(step, model);
  addTotals(step, loss);
  addGradient(step, model, loss);
  const updates = updatesOf(step, model.parameters, options.optimizer);
  addNorm(step, model, loss, options.clip);
  for (const task of averages(step, model)) step.tasks.push(task);
  for (const task of updates) step.tasks.push(task);
  return validateStep(step);
}

/** A step that does nothing but update parameters from gradients that are there: for tests and benchmarks of optimizers. */
export function buildUpdates(
  parameters: readonly ParameterInfo[],
  optimizer: Optimizer,
): StepGraph {
  const step = new StepBuilder("updates", 1);
  step.value("summary", "step", { dtype: "float32", shape: [4] });
  for (const { name, type } of parameters) {
    step.value("parameter", name, type);
    step.value("gradient", name, type);
  }
  step.tasks.push(...updatesOf(step, parameters, optimizer));
  return step;
}

class StepBuilder implements StepGraph {
  readonly values = new Map<string, StepValue>();
  readonly graphs = new Map<string, Graph>();
  readonly tasks: StepTask[] = [];
  readonly name: string;
  readonly microBatches: number;

  constructor(name: string, microBatches: number) {
    this.name = name;
    this.microBatches = microBatches;
  }

  /** Declares a value. `stage` distinguishes values of one role and name. */
  value(role: Role, of: string, type: TensorType, placement = REPLICATED, stage: string = role) {
    const name = valueName(stage, of);
    this.values.set(name, { role, of, type, placement });
    return name;
  }

  /** What micro-batches make and the step needs the sum of: the names before and after the sum, which are one without micro-batches. */
  summed(role: Role, of: string, type: TensorType): readonly [part: string, sum: string] {
    const sum = this.value(role, of, type);
    if (this.microBatches === 1) return [sum, sum];
    return [this.value(role, of, type, PARTIAL, `partial ${role}`), sum];
  }
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

/** What every micro-batch is given of the whole batch: for losses with several denominators only. */
function addTotals(step: StepBuilder, { totals }: BatchSums): void {
  if (totals === undefined) return;
  const width = totalsWidth(totals);
  const all = { dtype: width.dtype, shape: [step.microBatches, ...width.shape] };
  step.graphs.set("totals", partTotals(totals));
  step.graphs.set("totals of the batch", wholeTotals(totals, all));
  const parts = step.value("total", "parts", all, { [MICRO_BATCH]: { shard: 0 } });
  const together = step.value("total", "all parts", all);
  const given = totals.inputs.map((name, index) =>
    step.value("total", name, typeOf(totals.tail, totals.tail.outputs[index] as string)),
  );
  const inputs = totals.graph.inputs.map((name) => givenName(step, name));
  step.tasks.push(
    {
      kind: "compute",
      name: "totals",
      graph: "totals",
      each: MICRO_BATCH,
      inputs,
      outputs: [parts],
      graphInputs: totals.graph.inputs,
      graphOutputs: ["totals"],
    },
    {
      kind: "gather",
      name: "totals to all",
      each: "step",
      axes: [MICRO_BATCH],
      inputs: [parts],
      outputs: [together],
    },
    {
      kind: "compute",
      name: "totals of the batch",
      graph: "totals of the batch",
      each: "step",
      inputs: [together],
      outputs: given,
      graphInputs: ["totals"],
      graphOutputs: totals.inputs,
    },
  );
}

function givenName(step: StepBuilder, input: string): string {
  for (const role of ["batch", "parameter", "state", "total"]) {
    if (step.values.has(valueName(role, input))) return valueName(role, input);
  }
  throw new LockstepError("INVALID_GRAPH", `Nothing gives the model's input "${input}".`);
}

function addGradient(step: StepBuilder, model: Model, loss: BatchSums): void {
  const { graph, gradients } = gradientGraph(model, loss);
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
    // Floats are averaged over micro-batches; of counters, that of a rank's first micro-batch holds.
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
    graphInputs: graph.inputs,
    graphOutputs: graph.outputs,
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

/** Parameters of one element type that a rule updates in one way are updated together. */
function updatesOf(
  step: StepBuilder,
  parameters: readonly ParameterInfo[],
  optimizer: Optimizer,
): UpdateTask[] {
  if (parameters.length === 0) {
    throw new LockstepError("INVALID_OPTION", "The model has no parameter to train.");
  }
  const keyed = parameters.map((parameter) => ({ parameter, ...ruleOf(parameter, optimizer) }));
  const keyOf = (item: (typeof keyed)[number]) =>
    `${item.index}:${item.decays ? "decay" : "plain"}`;
  keyed.sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : keyOf(a) > keyOf(b) ? 1 : 0));
  const groups = new Map<string, typeof keyed>();
  for (const item of keyed) {
    const key = `${keyOf(item)}:${item.parameter.type.dtype}`;
    groups.set(key, [...(groups.get(key) ?? []), item]);
  }
  return [...groups.values()].map((items): UpdateTask => {
    const [{ index, decays }] = items as [(typeof keyed)[number]];
    const { rule } = optimizer.rules[index] as Optimizer["rules"][number];
    const written: string[] = [];
    const read = items.flatMap(({ parameter: { name, type } }) => {
      written.push(step.value("parameter", name, type, REPLICATED, "next parameter"));
      const slots = rule.slots.map((slot) => {
        const own = updateType(type);
        const slotType = slot.typeOf?.(own) ?? own;
        written.push(step.value("slot", `${name}.${slot.name}`, slotType, REPLICATED, "next slot"));
        return step.value("slot", `${name}.${slot.name}`, slotType);
      });
      return [valueName("parameter", name), valueName("gradient", name), ...slots];
    });
    return {
      kind: "update",
      name: `update by ${rule.name}${decays ? ", with decay" : ""}`,
      rule: index,
      decays,
      granularity: rule.granularity,
      axes: [],
      inputs: [...read, SUMMARY],
      outputs: written,
    };
  });
}

function ruleOf(
  parameter: ParameterInfo,
  optimizer: Optimizer,
): { readonly index: number; readonly decays: boolean } {
  if (!isFloat(parameter.type.dtype)) {
    throw new LockstepError(
      "INVALID_OPTION",
      `Parameter "${parameter.name}" is ${parameter.type.dtype}: only floats are trained.`,
    );
  }
  const index = optimizer.rules.findIndex(({ selects }) => isSelected(selects, parameter));
  const rule = optimizer.rules[index]?.rule;
  if (rule === undefined) {
    throw new LockstepError(
      "INVALID_OPTION",
      `No rule of the optimizer "${optimizer.name}" selects the parameter "${parameter.name}".`,
      { hint: "End the rules with one that selects every parameter." },
    );
  }
  const wanted = rule.decay === undefined ? parameter.decay : isSelected(rule.decay, parameter);
  return { index, decays: rule.weightDecay !== 0 && wanted };
}
