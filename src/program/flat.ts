/**
 * The flat vectors of a step: parameters, and what is summed over micro-batches. Parameters that
 * are updated in one way lie together, so that small graphs sweep over them and see no boundary
 * between tensors.
 */
import { LockstepError } from "../errors.ts";
import { shardAxes } from "../mesh/index.ts";
import { type Optimizer, type Rules, rulesOf, type UpdateRule } from "../optimizer/index.ts";
import {
  isOfKind,
  MICRO_BATCH,
  type Role,
  type StepGraph,
  type UpdateTask,
  valueOf,
} from "../plan/index.ts";
import { type Layout, type LayoutGroup, type LayoutItem, planLayout } from "./layout.ts";
import type { BufferSpace } from "./program.ts";

/** The parameters of one update task. */
export interface UpdateGroup {
  readonly task: UpdateTask;
  readonly rule: UpdateRule;
  /** The rule's place in the optimizer. */
  readonly index: number;
  readonly decays: boolean;
  /** The axes that divide the model, of which these parameters are parts. */
  readonly partOver: readonly string[];
  readonly group: LayoutGroup;
}

export interface FlatVectors {
  /** By the names of parameters. */
  readonly parameters: Layout;
  /**
   * Gradients by the names of their parameters, at the same places; then other sums by their names.
   */
  readonly gradients: Layout;
  readonly updates: readonly UpdateGroup[];
  /** Where parameters and slots lie. */
  readonly spaces: { readonly parameters: BufferSpace; readonly slots: BufferSpace };
}

export function flatVectors(step: StepGraph, optimizer: Optimizer): FlatVectors {
  const rules = rulesOf(optimizer);
  const updates = new Map<string, Omit<UpdateGroup, "group">>();
  const items = step.tasks.filter(isOfKind("update")).flatMap((task): LayoutItem[] => {
    const { rule: index, decays } = task;
    const { rule } = rules[index] as Rules[number];
    const parameters = task.inputs.map((name) => valueOf(step, name)).filter(isParameter);
    return parameters.map(({ of, type, partOver = [] }) => {
      const way = [index, decays ? "decay" : "plain", ...partOver].join(":");
      const update = { task, rule, index, decays, partOver };
      const key = `${way}:${type.dtype}`;
      if (!updates.has(key)) updates.set(key, update);
      return { name: of, type, group: way };
    });
  });
  const summed = step.tasks.filter(isOfKind("reduce")).flatMap(({ outputs }) => outputs);
  const others = summed.filter((name) => valueOf(step, name).role !== "gradient");
  const beside = others.map((name) => ({ name, type: valueOf(step, name).type, group: "summed" }));
  const parameters = planLayout(items);
  return {
    spaces: { parameters: spaceOf(step, "parameter"), slots: spaceOf(step, "slot") },
    parameters,
    gradients: planLayout([...items, ...beside], parameters.tile),
    updates: parameters.groups.map((group) => {
      return {
        ...(updates.get(`${group.key}:${group.dtype}`) as Omit<UpdateGroup, "group">),
        group,
      };
    }),
  };
}

function spaceOf(step: StepGraph, wanted: Role): BufferSpace {
  const own = [...step.values.values()].filter(({ role }) => role === wanted);
  return own.some(({ space }) => space === "disk") ? "disk" : "device";
}

function isParameter({ role }: { readonly role: string }): boolean {
  return role === "parameter";
}

/** The name in the layout of gradients of what is summed to this value. */
export function flatName(step: StepGraph, sum: string): string {
  const { role, of } = valueOf(step, sum);
  return role === "gradient" ? of : sum;
}

/**
 * The axes over which a step shards its gradients.
 * @throws INVALID_OPTION if an update needs whole parameters
 */
export function gradientAxes(step: StepGraph, { updates }: FlatVectors): string[] {
  const whole = updates.find(({ rule }) => rule.granularity === "tensor");
  if (whole !== undefined) {
    const other = step.pipeline === undefined ? "Use zero: 1, or another" : "Use another";
    throw new LockstepError(
      "INVALID_OPTION",
      `The optimizer's rule "${whole.rule.name}" updates whole parameters, which no worker has where gradients are sharded.`,
      { hint: `${other} optimizer.` },
    );
  }
  const gradients = [...step.values.values()].filter(({ role }) => role === "gradient");
  const placements = gradients.map(({ placement }) => shardAxes(placement));
  return placements.find((axes) => axes.length > 0 && !axes.includes(MICRO_BATCH)) ?? [];
}
