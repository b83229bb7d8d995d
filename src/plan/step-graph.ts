/**
 * The step of all ranks as one graph of tasks over named values, in global shapes. Strategies
 * rewrite it (`parallel/`); lowering turns it into the program of one rank (`program/`). It is
 * data: it can be printed, hashed, and written as JSON.
 */
import { assert, LockstepError } from "../errors.ts";
import type { Graph } from "../graph/index.ts";
import type { AxisPlacement, Placement } from "../mesh/index.ts";
import type { ModelDevices } from "../nn/index.ts";
import { byteLength, type TensorType } from "../tensor/index.ts";
import type { Direction } from "./timetable.ts";

/**
 * The axis along which the micro-batches of a step lie. It is not an axis of a mesh: ranks run
 * their micro-batches one after the other, and the data-parallel axes of the mesh determine which
 * rank has which micro-batches.
 */
export const MICRO_BATCH = "micro-batch";

/**
 * - `batch`: a field of the batch, or the random keys of its samples;
 * - `state`: a value that a step replaces and that no gradient reaches, such as running
 *   statistics;
 * - `term`: a value from whose sums the loss of the whole batch is computed;
 * - `control`: a value that ranks exchange in a step (wishes to stop, measured paces), or that
 *   the trainer gives to the step;
 * - `total`: a number of the whole batch that every micro-batch is given;
 * - `compressed`: a gradient in the form in which it is exchanged;
 * - `activation`: a value that one piece of the forward and backward pass computes for a later
 *   one.
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
  /** The name of the parameter, state or field that the value belongs to. */
  readonly of: string;
  /** The type of the whole value, over all ranks and micro-batches. */
  readonly type: TensorType;
  readonly placement: Placement;
  /** The axes that divide the model of which this is a part: see `localStep`. Default: none. */
  readonly partOver?: readonly string[];
  /** `disk`: it lies in a mapped file, so that it need not stay in memory. Default: in memory. */
  readonly space?: "disk";
}

interface TaskBase {
  readonly name: string;
  /** The names of the values that the task reads. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
}

/**
 * An execution of a graph: once for each micro-batch, or once per step. The task's inputs and
 * outputs are those of the graph, in the graph's order.
 */
export interface ComputeTask extends TaskBase {
  readonly kind: "compute";
  readonly graph: string;
  readonly each: typeof MICRO_BATCH | "step";
  /** The part of which stage of a pipeline it is. Default: there are no stages. */
  readonly stage?: StagePart;
}

/** A part of a stage of a pipeline. */
export interface StagePart {
  readonly stage: number;
  readonly direction: Direction;
}

/**
 * Sums over axes, but not over those along which an input has parts of a dim and no terms. If the
 * placement of a result is sharded over some of the axes, each rank keeps its shard
 * (reduce-scatter); otherwise all ranks have the result (all-reduce).
 */
export interface ReduceTask extends TaskBase {
  readonly kind: "reduce";
  /**
   * - `step`: each rank first sums its own micro-batches, and the sums of the ranks are added at
   *   the end;
   * - `micro-batch`: each rank receives its shard of the sum while ranks run their micro-batches,
   *   so that no rank holds a whole sum.
   */
  readonly each: typeof MICRO_BATCH | "step";
  readonly axes: readonly string[];
  /**
   * - `tree`: one fixed binary tree over all micro-batches of the step, so that the sum has the
   *   same bits on any mesh;
   * - `any`: each rank first adds all of its micro-batches. That moves fewer bytes if they do not
   *   form a node of the tree.
   */
  readonly combination: "tree" | "any";
}

/**
 * Gives values that are sharded over these axes, or computed by micro-batch, to all ranks of the
 * axes (all-gather).
 */
export interface GatherTask extends TaskBase {
  readonly kind: "gather";
  /** If it is done for every micro-batch, the gathered value is freed after its last reader. */
  readonly each: typeof MICRO_BATCH | "step";
  readonly axes: readonly string[];
}

/**
 * Changes how the ranks of an axis hold values, within the pass of a micro-batch: from terms of a
 * sum to the sum, from parts of a dim to the whole, and so on.
 */
export interface ExchangeTask extends TaskBase {
  readonly kind: "exchange";
  readonly each: typeof MICRO_BATCH;
  readonly axis: string;
  /** How each input is held, and each output. Undefined: replicated. */
  readonly from: readonly AxisPlacement[];
  readonly to: readonly (AxisPlacement | undefined)[];
  /** By input: whether each rank just takes what the rank before it gives. Default: none is. */
  readonly shifted?: readonly boolean[];
  /** The part of which stage of a pipeline it belongs to. Default: there are no stages. */
  readonly stage?: StagePart;
}

/**
 * Computes the loss, the norm of the gradient, and the factor that turns the sum of gradients into
 * the clipped gradient of the loss.
 */
export interface NormTask extends TaskBase {
  readonly kind: "norm";
  readonly terms: readonly TermSpec[];
  /**
   * The name of the graph from the sums of all terms to the loss; undefined if the loss is its only
   * term.
   */
  readonly tail: string | undefined;
  /** The indices of the terms that the loss is divided by. */
  readonly counts: readonly number[];
  /** The largest norm that the gradient may have. */
  readonly clip: number | undefined;
}

export interface TermSpec {
  readonly value: string;
  /** The term of the whole batch is the sum over micro-batches times this factor. */
  readonly factor: number;
  readonly trained: boolean;
}

/**
 * Tasks after this one take effect only if loss and norm are finite (commit). Otherwise nothing
 * that was committed changes (abort).
 */
export interface DecideTask extends TaskBase {
  readonly kind: "decide";
  readonly outcomes: readonly ("commit" | "skip" | "abort")[];
}

/** Computes the mean of states over micro-batches. */
export interface AverageTask extends TaskBase {
  readonly kind: "average";
  readonly divisor: number;
}

/**
 * Computes new values of the parameters that one rule of the optimizer updates in one way, and of
 * their slots.
 */
export interface UpdateTask extends TaskBase {
  readonly kind: "update";
  /** The index of the rule in the optimizer. */
  readonly rule: number;
  readonly decays: boolean;
  /**
   * `element`: any range of the flattened parameters can be updated separately; `tensor`: only
   * whole parameters can.
   */
  readonly granularity: "element" | "tensor";
  /** The axes over which ranks divide the update: each rank updates a part. */
  readonly axes: readonly string[];
  /** Parts that two ranks update, so that none is lost with a node. Default: none. */
  readonly buddies?: readonly Buddy[];
}

/** The rank `at` holds and updates the part of the rank `of`, too; it is on another node. */
export interface Buddy {
  readonly of: number;
  readonly at: number;
}

export type StepTask =
  | ComputeTask
  | ReduceTask
  | GatherTask
  | ExchangeTask
  | NormTask
  | DecideTask
  | AverageTask
  | UpdateTask;

export interface StepGraph {
  readonly name: string;
  readonly microBatches: number;
  readonly values: ReadonlyMap<string, StepValue>;
  readonly graphs: ReadonlyMap<string, Graph>;
  /** The tasks in an order in which they can run one after the other. */
  readonly tasks: readonly StepTask[];
  /** How the ranks of an axis share the stages of the pass. Default: there are no stages. */
  readonly pipeline?: Pipeline;
  /** How devices are to share the model, if a file says so. */
  readonly devices?: ModelDevices;
}

export interface Pipeline {
  /** Its ranks are those of the timetable: see `stageRanks` for who computes which stage. */
  readonly axis: string;
  /** A name, or the timetable as text. */
  readonly schedule: string;
}

/**
 * The name of a value, such as `gradient:blocks.0.weight`. If a value has several stages, `role`
 * names the stage as well: `partial gradient:blocks.0.weight`.
 */
export function valueName(role: string, of: string): string {
  return `${role}:${of}`;
}

export function valueOf(step: StepGraph, name: string): StepValue {
  const value = step.values.get(name);
  assert(value !== undefined, `the step "${step.name}" has a value "${name}"`);
  return value;
}

/** The bytes of values of a step together, over all ranks and micro-batches. */
export function bytesOf(step: StepGraph, names: Iterable<string>): number {
  return [...names].reduce((sum, name) => sum + byteLength(valueOf(step, name).type), 0);
}

export function isOfKind<Kind extends StepTask["kind"]>(
  kind: Kind,
): (task: StepTask) => task is Extract<StepTask, { readonly kind: Kind }> {
  return (task): task is Extract<StepTask, { readonly kind: Kind }> => task.kind === kind;
}

/** The roles of values that exist before a step begins. */
const GIVEN: ReadonlySet<Role> = new Set(["batch", "parameter", "state", "slot", "control"]);

/**
 * Checks names, order, single assignment, and that graphs fit their tasks.
 * @throws INVALID_GRAPH for the first fault
 */
export function validateStep(step: StepGraph): StepGraph {
  const fail = (what: string): never => {
    throw new LockstepError("INVALID_GRAPH", `The step "${step.name}": ${what}.`);
  };
  for (const [name, { space }] of step.values) {
    if (space !== undefined && space !== "disk") fail(`"${name}" lies in "${space}"`);
  }
  const made = new Set<string>();
  for (const task of step.tasks) {
    for (const name of [...task.inputs, ...task.outputs]) {
      if (!step.values.has(name))
        fail(`task "${task.name}" names "${name}", which is not a value of the step`);
    }
    for (const name of task.inputs) {
      const { role } = valueOf(step, name);
      if (!made.has(name) && !GIVEN.has(role)) fail(`"${task.name}" reads "${name}" too early`);
    }
    for (const name of task.outputs) {
      if (made.has(name)) fail(`"${task.name}" makes "${name}" a second time`);
      made.add(name);
    }
    if (task.kind !== "compute") continue;
    const graph = step.graphs.get(task.graph);
    if (graph === undefined)
      return fail(`task "${task.name}" runs "${task.graph}", which is not a graph of the step`);
    for (const side of ["inputs", "outputs"] as const) {
      const [count, wanted] = [task[side].length, graph[side].length];
      if (count === wanted) continue;
      fail(`"${task.name}" has ${count} ${side}, but its graph "${task.graph}" has ${wanted}`);
    }
  }
  return step;
}
