/** An optimizer's rule as a graph over some tiles or tensors. */
import { cast } from "../functional/index.ts";
import type { Graph, Value } from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import { updateType } from "../optimizer/index.ts";
import { buildNamed } from "../plan/index.ts";
import type { TensorType } from "../tensor/index.ts";
import type { FlatVectors } from "./flat.ts";
import type { GroupPlan } from "./update-groups.ts";

/** The update of `count` parameters or tiles, one after the other. */
export function updateGraph(
  name: string,
  { rule, decays, group, scalars }: GroupPlan,
  count: number,
  types: () => { parameter: TensorType; slots: Record<string, TensorType> },
): Graph {
  const builder = newBuilder(name);
  const { parameter, slots } = types();
  const scalarValues = new Map(
    Object.keys(scalars).map((scalarName) => [
      scalarName,
      builder.input(`scalar.${scalarName}`, updateType({ dtype: group.dtype, shape: [] })),
    ]),
  );
  const outputs = new Map<string, Value>();
  for (let index = 0; index < count; index++) {
    const slotValues = new Map(
      Object.entries(slots).map(([slot, type]) => [slot, builder.input(`${slot}.${index}`, type)]),
    );
    const next = rule.update({
      builder,
      parameter: cast(builder.input(`parameter.${index}`, parameter), updateType(parameter).dtype),
      gradient: cast(builder.input(`gradient.${index}`, parameter), updateType(parameter).dtype),
      slot: (slot) => slotValues.get(slot) as Value,
      scalar: (scalarName) => scalarValues.get(scalarName) as Value,
      decays,
    });
    outputs.set(`parameter.${index}/next`, cast(next.parameter, parameter.dtype));
    for (const [slot, value] of Object.entries(next.slots)) {
      outputs.set(`${slot}.${index}/next`, value);
    }
  }
  return buildNamed(builder, outputs);
}

/** A group's update, for a graph of each shape: the same on all ranks, whatever blocks they run. */
export function graphsOf(plan: FlatVectors, group: GroupPlan): Graph[] {
  const { tile } = plan.gradients;
  const { rule, slots, decays } = group;
  const { dtype, entries } = group.group;
  const name = `${rule.name} ${decays ? "decays" : "plain"}`;
  if (rule.granularity === "element") {
    const parameter = { dtype, shape: [tile] };
    const types = slots.map((slot) => [slot.name, updateType(parameter)] as const);
    return [updateGraph(name, group, 1, () => ({ parameter, slots: Object.fromEntries(types) }))];
  }
  return entries.map((entry) => {
    const types = slots.map(({ name: slot, layout }) => {
      return [slot, layout.entries.get(entry.name)?.type ?? entry.type] as const;
    });
    const parameter = entry.type;
    return updateGraph(name, group, 1, () => ({ parameter, slots: Object.fromEntries(types) }));
  });
}
