/** The groups of parameters that are updated alike, with their slots and scalars: where everything lies. */
import type { TensorType } from "../tensor/index.ts";
import { type Layout, planLayout } from "./layout.ts";
import type { ParameterPlan, UpdateGroup } from "./plan-parameters.ts";
import type { ProgramBuilder, TensorRef } from "./program.ts";

/** One tensor for each parameter of a rule. */
export interface SlotPlan {
  readonly name: string;
  readonly buffer: string;
  readonly layout: Layout;
}

export interface GroupPlan extends UpdateGroup {
  readonly scalars: Readonly<Record<string, TensorRef>>;
  readonly slots: readonly SlotPlan[];
}

export const PARAMETERS = "parameters";
export const SCRATCH = "parameters.next";
const SCALAR_BYTES = 8;

/** Half floats are updated in float32: AdamW's epsilon is zero in float16. Slots are float32 then. */
export function wide(type: TensorType): TensorType {
  const isHalf = type.dtype === "float16" || type.dtype === "bfloat16";
  return isHalf ? { ...type, dtype: "float32" } : type;
}

/** Whether new parameters go to a scratch vector first: they cannot be written over what is still read. */
export function needsScratch({ rule, group }: UpdateGroup): boolean {
  return rule.inPlace === false || wide({ dtype: group.dtype, shape: [] }).dtype !== group.dtype;
}

/** Where new parameters are written. */
export function targetOf(update: UpdateGroup): string {
  return needsScratch(update) ? SCRATCH : PARAMETERS;
}

/** Slots of one group lie together, as its parameters do. */
export function slotGroup({
  key,
  dtype,
}: {
  readonly key: string;
  readonly dtype: string;
}): string {
  return `${key}:${dtype}`;
}

/** By the rule's place in the optimizer. */
export function planSlots(program: ProgramBuilder, plan: ParameterPlan): Map<number, SlotPlan[]> {
  const slots = new Map<number, SlotPlan[]>();
  for (const { rule, index } of plan.updates) {
    if (slots.has(index)) continue;
    const groups = plan.updates.filter((update) => update.index === index);
    const planned = rule.slots.map(({ name, typeOf }) => {
      const items = groups.flatMap(({ group }) =>
        group.entries.map((entry) => {
          const type = wide(entry.type);
          return { name: entry.name, group: slotGroup(group), type: typeOf?.(type) ?? type };
        }),
      );
      const layout = planLayout(items, plan.gradients.tile);
      return { name, layout, buffer: program.buffer(`slot.${index}.${name}`, layout.byteLength) };
    });
    slots.set(index, planned);
  }
  return slots;
}

export function planGroups(
  program: ProgramBuilder,
  plan: ParameterPlan,
  slots: ReadonlyMap<number, SlotPlan[]>,
): GroupPlan[] {
  let count = 0;
  const groups = plan.updates.map((update) => {
    const { rule, group, index } = update;
    const names = Object.keys(
      rule.scalars({ step: 1, learningRate: 1, gradientScale: 1, weightDecay: 0 }),
    );
    const type = wide({ dtype: group.dtype, shape: [] });
    const scalars = Object.fromEntries(
      names.map((name) => [name, { buffer: "scalars", byteOffset: count++ * SCALAR_BYTES, type }]),
    );
    return { ...update, scalars, slots: slots.get(index) ?? [] };
  });
  program.buffer("scalars", count * SCALAR_BYTES, "host");
  return groups;
}
