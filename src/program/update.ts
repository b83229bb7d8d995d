/** The optimizer's part of a program: its slots, its scalars, and the stage that updates every parameter. */
import { cast } from "../functional/index.ts";
import type { Graph, Value } from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import type { StepContext } from "../optimizer/index.ts";
import { elementCount, scalar, type TensorType } from "../tensor/index.ts";
import type { Instance } from "./instance.ts";
import { type Layout, type LayoutEntry, type LayoutGroup, planLayout } from "./layout.ts";
import { buildNamed } from "./named.ts";
import type { ParameterPlan, UpdateGroup } from "./plan-parameters.ts";
import type { ProgramBuilder, Run, Stage, TensorRef } from "./program.ts";
import { gatherStage, shareEntries } from "./share-update.ts";
import { type Block, blockRef, blocksOf, elementsIn, sweepMode, tileRefs } from "./sweep.ts";

/** One tensor for each parameter of a rule. */
export interface SlotPlan {
  readonly name: string;
  readonly buffer: string;
  readonly layout: Layout;
}

export interface UpdatePlan {
  readonly stages: readonly Stage[];
  readonly slots: readonly SlotPlan[];
  /** Computes the step's scalars on the host and writes them where the graphs read them. */
  writeScalars(
    instance: Instance,
    step: Omit<StepContext, "weightDecay" | "learningRate">,
    factor: number,
  ): void;
}

interface GroupPlan extends UpdateGroup {
  readonly scalars: Readonly<Record<string, TensorRef>>;
  readonly slots: readonly SlotPlan[];
}

const PARAMETERS = "parameters";
const GRADIENTS = "gradients";
const SCRATCH = "parameters.next";
const SCALAR_BYTES = 8;

/** Half floats are updated in float32: AdamW's epsilon is zero in float16. Slots are float32 then. */
function wide(type: TensorType): TensorType {
  const isHalf = type.dtype === "float16" || type.dtype === "bfloat16";
  return isHalf ? { ...type, dtype: "float32" } : type;
}

/** Whether new parameters go to a scratch vector first: they cannot be written over what is still read. */
function needsScratch({ rule, group }: UpdateGroup): boolean {
  return rule.inPlace === false || wide({ dtype: group.dtype, shape: [] }).dtype !== group.dtype;
}

/** Where new parameters are written. */
function targetOf(update: UpdateGroup): string {
  return needsScratch(update) ? SCRATCH : PARAMETERS;
}

/** Slots of one group lie together, as its parameters do. */
function slotGroup({ key, dtype }: { readonly key: string; readonly dtype: string }): string {
  return `${key}:${dtype}`;
}

/** @param rank which of `ranks` ranks, for updates that are dear enough to be shared */
export function planUpdate(
  program: ProgramBuilder,
  plan: ParameterPlan,
  { rank, ranks }: { readonly rank: number; readonly ranks: number } = { rank: 0, ranks: 1 },
): UpdatePlan {
  const slots = planSlots(program, plan);
  const groups = planGroups(program, plan, slots);
  const shared = ranks === 1 ? [] : groups.filter(({ rule }) => rule.granularity === "tensor");
  const gathers = shared.flatMap((group) => gatherStages(program, group, ranks));
  const runs = groups.flatMap((group) =>
    group.rule.granularity === "element"
      ? elementRuns(program, plan, group)
      : tensorRuns(program, group, shareEntries(group.group, ranks)[rank] ?? []),
  );
  const swept = groups.every(({ rule }) => rule.granularity === "element");
  const mode = swept ? sweepMode(elementsIn(plan.parameters.groups), 2) : "parallel";
  const update: Stage = { name: "update", runs, mode };
  const copies = groups.filter(needsScratch);
  const copyBack: Stage = {
    name: "copy back",
    runs: copies.flatMap((group) => copyRuns(program, plan, group)),
    mode: "parallel",
  };
  if (copies.length > 0) program.buffer(SCRATCH, plan.parameters.byteLength);
  return {
    stages: [update, ...gathers, ...(copies.length > 0 ? [copyBack] : [])],
    slots: [...slots.values()].flat(),
    writeScalars(instance, step, factor) {
      for (const { rule, decays, scalars } of groups) {
        const values = rule.scalars({
          ...step,
          learningRate: rule.learningRate * factor,
          weightDecay: decays ? rule.weightDecay : 0,
        });
        for (const [name, ref] of Object.entries(scalars)) {
          instance.tensor(ref).bytes.set(scalar(ref.type.dtype, values[name] as number).bytes);
        }
      }
    },
  };
}

/** By the rule's place in the optimizer. */
function planSlots(program: ProgramBuilder, plan: ParameterPlan): Map<number, SlotPlan[]> {
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

function planGroups(
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
  program.buffer("scalars", count * SCALAR_BYTES);
  return groups;
}

/** Tiles of flat vectors, in place; a block of tiles is one graph, tile after tile. */
function elementRuns(program: ProgramBuilder, plan: ParameterPlan, group: GroupPlan): Run[] {
  const { rule, decays, slots, scalars } = group;
  const { tile } = plan.gradients;
  return blocksOf(group.group, tile).map((block) => {
    const places = tilePlaces(plan, group, block);
    const type = { dtype: group.group.dtype, shape: [tile] };
    const name = `update.${rule.name}.${decays ? "decay" : "plain"}.${type.dtype}.${block.tiles}`;
    const graph = program.graph(`${name}.${group.index}`, 1, () =>
      updateGraph(name, group, block.tiles, () => ({
        parameter: type,
        slots: Object.fromEntries(slots.map((slot) => [slot.name, wide(type)])),
      })),
    );
    return {
      graph,
      inputs: { ...scalarInputs(scalars), ...places.inputs },
      outputs: places.outputs,
    };
  });
}

function tilePlaces(
  plan: ParameterPlan,
  planned: GroupPlan,
  block: Block,
): Pick<Run, "inputs" | "outputs"> {
  const inputs: Record<string, TensorRef> = {};
  const outputs: Record<string, TensorRef> = {};
  const { group, slots } = planned;
  const put = (name: string, refs: readonly TensorRef[], written = refs): void => {
    for (const [index, ref] of refs.entries()) inputs[`${name}.${index}`] = ref;
    for (const [index, ref] of written.entries()) outputs[`${name}.${index}/next`] = ref;
  };
  const target = targetOf(planned);
  put(
    "parameter",
    tileRefs(PARAMETERS, plan.parameters, group, block),
    tileRefs(target, plan.parameters, group, block),
  );
  put("gradient", tileRefs(GRADIENTS, plan.gradients, group, block), []);
  for (const { name, layout, buffer } of slots) {
    const own = layout.groups.find(({ key }) => key === slotGroup(group)) as typeof group;
    put(name, tileRefs(buffer, layout, own, block));
  }
  return { inputs, outputs };
}

/** What each rank has updated goes to all: parameters, and slots, so that all ranks stay alike. */
function gatherStages(program: ProgramBuilder, group: GroupPlan, ranks: number): Stage[] {
  const names = shareEntries(group.group, ranks).map((own) => own.map(({ name }) => name));
  const places: [string, LayoutGroup][] = [[targetOf(group), group.group]];
  for (const { layout, buffer } of group.slots) {
    // Slots whose types differ from those of the parameters lie in groups of their own.
    const own = layout.groups.filter(({ key }) => key === slotGroup(group.group));
    for (const lies of own) places.push([buffer, lies]);
  }
  return places.map(([buffer, lies]) => gatherStage(program, buffer, lies, names));
}

/** One run for each parameter, in its own shape; the largest first, so that threads end together. */
function tensorRuns(
  program: ProgramBuilder,
  group: GroupPlan,
  entries: readonly LayoutEntry[],
): Run[] {
  const { rule, decays, slots, scalars } = group;
  const target = targetOf(group);
  const sized = entries.toSorted((a, b) => elementCount(b.type.shape) - elementCount(a.type.shape));
  return sized.map(({ name: parameter, type, byteOffset }) => {
    const own = slots.map(({ name, layout, buffer }) => {
      const entry = layout.entries.get(parameter) as NonNullable<
        ReturnType<typeof layout.entries.get>
      >;
      return [name, { buffer, byteOffset: entry.byteOffset, type: entry.type }] as const;
    });
    const name = `update.${rule.name}.${decays ? "decay" : "plain"}.${type.dtype}.${type.shape.join("x")}`;
    const graph = program.graph(`${name}.${group.index}`, 1, () =>
      updateGraph(name, group, 1, () => ({
        parameter: type,
        slots: Object.fromEntries(own.map(([slot, ref]) => [slot, ref.type])),
      })),
    );
    return {
      graph,
      inputs: {
        ...scalarInputs(scalars),
        "parameter.0": { buffer: PARAMETERS, byteOffset, type },
        "gradient.0": { buffer: GRADIENTS, byteOffset, type },
        ...Object.fromEntries(own.map(([slot, ref]) => [`${slot}.0`, ref])),
      },
      outputs: {
        "parameter.0/next": { buffer: target, byteOffset, type },
        ...Object.fromEntries(own.map(([slot, ref]) => [`${slot}.0/next`, ref])),
      },
    };
  });
}

function copyRuns(program: ProgramBuilder, plan: ParameterPlan, { group }: GroupPlan): Run[] {
  return blocksOf(group, plan.gradients.tile).map((block) => {
    const source = blockRef(SCRATCH, plan.parameters, group, block);
    const graph = program.graph(`copy.${group.dtype}.${block.tiles}`, 1, () => {
      const builder = newBuilder("copy");
      const copied = builder.one("Identity", [builder.input("from", source.type)]);
      return buildNamed(builder, new Map([["to", copied]]));
    });
    const to = blockRef(PARAMETERS, plan.parameters, group, block);
    return { graph, inputs: { from: source }, outputs: { to } };
  });
}

/** The update of `count` parameters or tiles, one after the other. */
function updateGraph(
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
      builder.input(`scalar.${scalarName}`, wide({ dtype: group.dtype, shape: [] })),
    ]),
  );
  const outputs = new Map<string, Value>();
  for (let index = 0; index < count; index++) {
    const slotValues = new Map(
      Object.entries(slots).map(([slot, type]) => [slot, builder.input(`${slot}.${index}`, type)]),
    );
    const next = rule.update({
      builder,
      parameter: cast(builder.input(`parameter.${index}`, parameter), wide(parameter).dtype),
      gradient: cast(builder.input(`gradient.${index}`, parameter), wide(parameter).dtype),
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

function scalarInputs(scalars: Readonly<Record<string, TensorRef>>): Record<string, TensorRef> {
  return Object.fromEntries(Object.entries(scalars).map(([name, ref]) => [`scalar.${name}`, ref]));
}
