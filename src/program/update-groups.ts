/** The groups of parameters that are updated alike, with the places of their slots and scalars. */
import { updateType } from "../optimizer/index.ts";
import { PARAMETERS, SCALARS, SCRATCH, slotBuffer } from "./buffers.ts";
import type { FlatVectors, UpdateGroup } from "./flat.ts";
import { type Layout, type LayoutGroup, planLayout } from "./layout.ts";
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
  /** The buffer to which new parameters are written. */
  readonly target: typeof PARAMETERS | typeof SCRATCH;
}

const SCALAR_BYTES = 8;

/** The key of the slots of a group, which lie together as its parameters do. */
function slotKey({ key, dtype }: LayoutGroup): string {
  return `${key}:${dtype}`;
}

/**
 * The groups of a slot that belong to a group of parameters: one, or more if the slot has several
 * element types.
 */
export function slotGroups({ layout }: SlotPlan, group: LayoutGroup): readonly LayoutGroup[] {
  return layout.groups.filter(({ key }) => key === slotKey(group));
}

/** By the rule's place in the optimizer. */
function planSlots(program: ProgramBuilder, plan: FlatVectors): Map<number, SlotPlan[]> {
  const slots = new Map<number, SlotPlan[]>();
  for (const { rule, index } of plan.updates) {
    if (slots.has(index)) continue;
    const groups = plan.updates.filter((update) => update.index === index);
    const planned = rule.slots.map(({ name, typeOf }) => {
      const items = groups.flatMap(({ group }) =>
        group.entries.map((entry) => {
          const type = updateType(entry.type);
          return { name: entry.name, group: slotKey(group), type: typeOf?.(type) ?? type };
        }),
      );
      const layout = planLayout(items, plan.gradients.tile);
      const bytes = layout.byteLength;
      const buffer = program.buffer(slotBuffer(index, name), bytes, plan.spaces.slots);
      return { name, layout, buffer };
    });
    slots.set(index, planned);
  }
  return slots;
}

export function planGroups(program: ProgramBuilder, plan: FlatVectors): GroupPlan[] {
  const slots = planSlots(program, plan);
  let count = 0;
  const groups = plan.updates.map((update): GroupPlan => {
    const { rule, group, index } = update;
    const names = Object.keys(
      rule.scalars({ step: 1, learningRate: 1, gradientScale: 1, weightDecay: 0 }),
    );
    const type = updateType({ dtype: group.dtype, shape: [] });
    const scalars = Object.fromEntries(
      names.map((name) => [name, { buffer: SCALARS, byteOffset: count++ * SCALAR_BYTES, type }]),
    );
    // A rule that still reads what it would write over has another place for new parameters.
    const isInPlace = rule.inPlace !== false && type.dtype === group.dtype;
    const target = isInPlace ? PARAMETERS : SCRATCH;
    return { ...update, scalars, slots: slots.get(index) ?? [], target };
  });
  program.buffer(SCALARS, count * SCALAR_BYTES, "host");
  return groups;
}
