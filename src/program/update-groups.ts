/** The groups of parameters that are updated alike, with their slots and scalars: where everything lies. */
import { updateType } from "../optimizer/index.ts";
import { PARAMETERS, SCALARS, SCRATCH, slotBuffer } from "./buffers.ts";
import type { FlatVectors, UpdateGroup } from "./flat.ts";
import { type Layout, planLayout } from "./layout.ts";
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

const SCALAR_BYTES = 8;

/** Whether new parameters go to a scratch vector first: they cannot be written over what is still read. */
export function needsScratch({ rule, group }: UpdateGroup): boolean {
  return (
    rule.inPlace === false || updateType({ dtype: group.dtype, shape: [] }).dtype !== group.dtype
  );
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
export function planSlots(program: ProgramBuilder, plan: FlatVectors): Map<number, SlotPlan[]> {
  const slots = new Map<number, SlotPlan[]>();
  for (const { rule, index } of plan.updates) {
    if (slots.has(index)) continue;
    const groups = plan.updates.filter((update) => update.index === index);
    const planned = rule.slots.map(({ name, typeOf }) => {
      const items = groups.flatMap(({ group }) =>
        group.entries.map((entry) => {
          const type = updateType(entry.type);
          return { name: entry.name, group: slotGroup(group), type: typeOf?.(type) ?? type };
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

export function planGroups(
  program: ProgramBuilder,
  plan: FlatVectors,
  slots: ReadonlyMap<number, SlotPlan[]>,
): GroupPlan[] {
  let count = 0;
  const groups = plan.updates.map((update) => {
    const { rule, group, index } = update;
    const names = Object.keys(
      rule.scalars({ step: 1, learningRate: 1, gradientScale: 1, weightDecay: 0 }),
    );
    const type = updateType({ dtype: group.dtype, shape: [] });
    const scalars = Object.fromEntries(
      names.map((name) => [name, { buffer: SCALARS, byteOffset: count++ * SCALAR_BYTES, type }]),
    );
    return { ...update, scalars, slots: slots.get(index) ?? [] };
  });
  program.buffer(SCALARS, count * SCALAR_BYTES, "host");
  return groups;
}
