/**
 * The step of all ranks as one graph of tasks over named values, in global shapes. Strategies rewrite it (`parallel/`); lowering
 * makes the program of a rank of it (`program/`). It is data: it can be printed, hashed, and written as JSON.
 */
import { assert, LockstepError } from "../errors.ts";
import type { Graph } from "../graph/index.ts";
import type { Placement } from "../mesh/index.ts";
import type { TensorType } from "../tensor/index.ts";

/**
 * The axis along which the micro-batches of a step lie. It is no axis of a mesh: ranks run their micro-batches one after the other, and
 * data-parallel axes of the mesh say which ranks have which.
 */
export const MICRO_BATCH = "micro-batch";

/**
 * - `batch`: a field of the batch, or the keys of its samples;
 * - `state`: what a step replaces and no gradient reaches (running statistics);
 * - `term`: what the loss of the whole batch is made of;
 * - `control`: what ranks tell each other in a step (wishes to stop, measured paces), or the trainer tells the step;
 * - `total`: a number of the whole batch that every micro-batch is given;
 * - `compressed`: a gradient in the form in which it travels;
 * - `activation`: what one piece of the forward and backward pass hands to a later one.
 */
export type Role =
  | "batch"
  | "parameter"
  | "state"
  | "slot"
  | "gradient"
  | "term"
  | "control"
  | "total"
  | "compressed"
  | "activation"
  | "summary";

export interface StepValue {
  readonly role: Role;
  /** Its name among values of its role: that of the parameter, the state, the field. */
  readonly of: string;
  /** Of the whole value, on all ranks and micro-batches together. */
  readonly type: TensorType;
  readonly placement: Placement;
}

interface TaskBase {
  readonly name: string;
  /** Names of values. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
}

/** A run of a graph: once for each micro-batch, or once in a step. */
export interface ComputeTask extends TaskBase {
  readonly kind: "compute";
  readonly graph: string;
  readonly each: typeof MICRO_BATCH | "step";
  /** The graph's own names of its inputs and outputs, in the order of the task's. */
  readonly graphInputs: readonly string[];
  readonly graphOutputs: readonly string[];
}

/** Sums over axes. A result whose placement is sharded over some of them is left so (reduce-scatter); else all have it (all-reduce). */
export interface ReduceTask extends TaskBase {
  readonly kind: "reduce";
  /**
   * - `step`: a rank sums its own micro-batches first, and all ranks theirs at the end;
   * - `micro-batch`: each rank is given its part of the sum while ranks run their micro-batches, so that none holds a whole sum.
   */
  readonly each: typeof MICRO_BATCH | "step";
  readonly axes: readonly string[];
  /**
   * - `tree`: one fixed binary tree over all micro-batches of the step, so that the sum has the same bits on any mesh;
   * - `any`: each rank adds up all that it has first, which moves fewer bytes where its micro-batches are no node of the tree.
   */
  readonly combination: "tree" | "any";
}

/** What is sharded over these axes (or computed by micro-batch) goes to all ranks of them. */
export interface GatherTask extends TaskBase {
  readonly kind: "gather";
  /** Whether it is done anew for every micro-batch: what is gathered is given up after its last reader then. */
  readonly each: typeof MICRO_BATCH | "step";
  readonly axes: readonly string[];
}

/** Loss, norm of the gradient, and the factor that makes the sum of gradients the clipped gradient of the loss. */
export interface NormTask extends TaskBase {
  readonly kind: "norm";
  readonly terms: readonly TermSpec[];
  /** A graph from the sums of all terms to the loss; undefined where the loss is its only term. */
  readonly tail: string | undefined;
  /** Terms (by index) that the loss is divided by. */
  readonly counts: readonly number[];
  /** The largest norm that the gradient may have. */
  readonly clip: number | undefined;
}

export interface TermSpec {
  readonly value: string;
  /** The whole batch has so many times the sum over micro-batches. */
  readonly factor: number;
  readonly trained: boolean;
}

/** What comes after it happens only if loss and norm are finite (commit); else nothing that was committed changes (abort). */
export interface DecideTask extends TaskBase {
  readonly kind: "decide";
  readonly outcomes: readonly ("commit" | "skip" | "abort")[];
}

/** The mean of states over micro-batches. */
export interface AverageTask extends TaskBase {
  readonly kind: "average";
  readonly divisor: number;
}

/** New values of the parameters that one rule of the optimizer updates in one way, and of their slots. */
export interface UpdateTask extends TaskBase {
  readonly kind: "update";
  /** The place of the rule in the optimizer. */
  readonly rule: number;
  readonly decays: boolean;
  /** `element`: any range of the flattened parameters can be updated by itself; `tensor`: whole parameters. */
  readonly granularity: "element" | "tensor";
  /** Axes over which ranks share the work out: each updates a part. */
  readonly axes: readonly string[];
}

export type StepTask =
  | ComputeTask
  | ReduceTask
  | GatherTask
  | NormTask
  | DecideTask
  | AverageTask
  | UpdateTask;

export interface StepGraph {
  readonly name: string;
  readonly microBatches: number;
  readonly values: ReadonlyMap<string, StepValue>;
  readonly graphs: ReadonlyMap<string, Graph>;
  /** In an order in which they can run one after the other. */
  readonly tasks: readonly StepTask[];
}

/** `gradient:blocks.0.weight`; a stage of the value's life before it where there are several. */
export function valueName(role: string, of: string): string {
  return `${role}:${of}`;
}

export function valueOf(step: StepGraph, name: string): StepValue {
  const value = step.values.get(name);
  assert(value !== undefined, `the step "${step.name}" has a value "${name}"`);
  return value;
}

export function isOfKind<Kind extends StepTask["kind"]>(
  kind: Kind,
): (task: StepTask) => task is Extract<StepTask, { readonly kind: Kind }> {
  return (task): task is Extract<StepTask, { readonly kind: Kind }> => task.kind === kind;
}

/** The task that makes a value; undefined for what is there before the step. */
export function makerOf({ tasks }: StepGraph, name: string): StepTask | undefined {
  return tasks.find(({ outputs }) => outputs.includes(name));
}

/** Roles of what is there before a step begins. */
const GIVEN: ReadonlySet<Role> = new Set(["batch", "parameter", "state", "slot", "control"]);

/**
 * Checks names, order, single assignment, and that graphs fit their tasks.
 * @throws INVALID_GRAPH with the first fault
 */
export function validateStep(step: StepGraph): StepGraph {
  const fail = (what: string): never => {
    throw new LockstepError("INVALID_GRAPH", `The step "${step.name}": ${what}.`);
  };
  const made = new Set<string>();
  for (const task of step.tasks) {
    for (const name of [...task.inputs, ...task.outputs]) {
      if (!step.values.has(name)) fail(`task "${task.name}" names "${name}", which is no value`);
    }
    for (const name of task.inputs) {
      const { role } = valueOf(step, name);
      if (!made.has(name) && !GIVEN.has(role)) fail(`"${task.name}" reads "${name}" too early`);
    }
    for (const name of task.outputs) {
      if (made.has(name)) fail(`"${task.name}" makes "${name}" a second time`);
      made.add(name);
    }
    if (task.kind === "compute") checkCompute(step, task, fail);
  }
  return step;
}

function checkCompute(step: StepGraph, task: ComputeTask, fail: (what: string) => never): void {
  const graph = step.graphs.get(task.graph);
  if (graph === undefined)
    return fail(`task "${task.name}" runs "${task.graph}", which is no graph`);
  const sides = [
    [graph.inputs, task.graphInputs, task.inputs],
    [graph.outputs, task.graphOutputs, task.outputs],
  ] as const;
  for (const [own, bound, values] of sides) {
    if (bound.length !== values.length) fail(`"${task.name}" does not bind each name to a value`);
    const strange = bound.find((name) => !own.includes(name));
    if (strange !== undefined) fail(`graph "${task.graph}" has no "${strange}"`);
    const missing = own.find((name) => !bound.includes(name));
    if (missing !== undefined) fail(`"${task.name}" leaves "${missing}" of its graph unbound`);
  }
}
