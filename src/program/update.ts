/** The optimizer's part of a program: its slots, its scalars, and the stage that updates every parameter. */
import { hashGraph } from "../graph/index.ts";
import { type Rules, type StepContext, updateType } from "../optimizer/index.ts";
import { elementCount, scalar, type Tensor } from "../tensor/index.ts";
import { GRADIENTS, PARAMETERS, SCRATCH } from "./buffers.ts";
import type { FlatVectors } from "./flat.ts";
import type { LayoutEntry, LayoutGroup } from "./layout.ts";
import {
  cutsOf,
  extentOf,
  gatherParts,
  type Ownership,
  ownExtents,
  ownPieces,
  withoutExtents,
} from "./ownership.ts";
import type { Piece } from "./pieces.ts";
import type { BufferSpec, ProgramBuilder, Run, Stage, TensorRef } from "./program.ts";
import { refsOf } from "./refs.ts";
import { copyRuns } from "./runs.ts";
import { gatherStage, type Held, shareEntries } from "./share-update.ts";
import { type Block, blocksBetween, elementsIn, sweepMode, tileRefs } from "./sweep.ts";
import { graphsOf, updateGraph } from "./update-graph.ts";
import {
  type GroupPlan,
  needsScratch,
  planGroups,
  planSlots,
  type SlotPlan,
  slotGroup,
  targetOf,
} from "./update-groups.ts";

export interface UpdatePlan {
  readonly stages: readonly Stage[];
  /** By `PARAMETER.SLOT`. */
  readonly slots: ReadonlyMap<string, TensorRef>;
  /** What each rank of this one's group holds alone, this one too: parts of slots, and of parameters. */
  readonly held: readonly Held[];
  readonly scalars: readonly ScalarPlan[];
  /** Hashes of what makes the update, the same on all ranks: of a graph for each shape that some rank updates. */
  readonly hashes: readonly string[];
}

/** Where the host writes the scalars of a rule before an update. */
export interface ScalarPlan {
  /** The place of the rule in the optimizer. */
  readonly rule: number;
  readonly decays: boolean;
  readonly places: Readonly<Record<string, TensorRef>>;
}

/** The scalars of a step, each with its place. @param factor of the learning rate */
export function scalarsOf(
  rules: Rules,
  plans: readonly ScalarPlan[],
  step: Omit<StepContext, "weightDecay" | "learningRate">,
  factor: number,
): [TensorRef, Tensor][] {
  return plans.flatMap(({ rule: index, decays, places }) => {
    const { rule } = rules[index] as Rules[number];
    const values = rule.scalars({
      ...step,
      learningRate: rule.learningRate * factor,
      weightDecay: decays ? rule.weightDecay : 0,
    });
    return Object.entries(places).map(([name, place]): [TensorRef, Tensor] => {
      return [place, scalar(place.type.dtype, values[name] as number)];
    });
  });
}

export interface UpdateSharing {
  readonly rank: number;
  readonly ranks: number;
  /** The group of all ranks. */
  readonly all: string;
  /** Of groups that are updated element by element; all of them on every rank unless told. */
  readonly ownership?: Ownership | undefined;
  /** Whether new parameters stay with the rank that made them. */
  readonly keepsParameters?: boolean;
}

/** Updates of whole tensors are shared out to all ranks, those of elements to those that `ownership` names. */
export function planUpdate(
  program: ProgramBuilder,
  plan: FlatVectors,
  sharing: UpdateSharing = { rank: 0, ranks: 1, all: "" },
): UpdatePlan {
  const { rank, ranks, all, ownership, keepsParameters = false } = sharing;
  const slots = planSlots(program, plan);
  const groups = planGroups(program, plan, slots);
  const shared = groups.filter(({ task }) => task.granularity === "tensor" && task.axes.length > 0);
  const gathers = [
    ...shared.flatMap((group) => gatherStages(program, group, ranks, all)),
    ...groups.flatMap((group) =>
      (keepsParameters ? [] : cutsOf(ownership, group.group)).map((cut) => {
        const place = { name: `new ${group.group.key} to all`, group: ownership?.group ?? all };
        return gatherParts(program, plan.parameters, cut, { ...place, buffer: targetOf(group) });
      }),
    ),
  ];
  const kept = keepsParameters ? [{ buffer: PARAMETERS, layout: plan.parameters }] : [];
  const held =
    ownership === undefined ? [] : groups.flatMap((group) => heldOf(group, kept, ownership));
  for (const buffer of new Set(held.map((part) => part.buffer))) {
    program.shared.add(buffer);
    const others = held.filter((part) => part.buffer === buffer && part.rank !== rank);
    const { byteLength } = program.buffers.get(buffer) as BufferSpec;
    program.touches(buffer, withoutExtents(byteLength, others));
  }
  const runs = groups.flatMap((group) =>
    group.rule.granularity === "element"
      ? elementRuns(program, plan, group, ownPieces(ownership, group.group, plan.gradients.tile))
      : tensorRuns(program, group, entriesOf(group, { rank, ranks })),
  );
  const swept = groups.every(({ rule }) => rule.granularity === "element");
  const mode = swept ? sweepMode(elementsIn(plan.parameters.groups), 2) : "parallel";
  const update: Stage = { name: "update", runs, mode };
  const copies = groups.filter(needsScratch);
  const copyBack: Stage = {
    name: "copy back",
    runs: copies.flatMap((group) =>
      copyRuns(
        program,
        plan.parameters,
        { from: SCRATCH, to: PARAMETERS },
        ownPieces(keepsParameters ? ownership : undefined, group.group, plan.gradients.tile),
      ),
    ),
    mode: "parallel",
  };
  if (copies.length > 0) {
    program.buffer(SCRATCH, plan.parameters.byteLength, plan.spaces.parameters);
    if (keepsParameters) program.touches(SCRATCH, ownExtents(plan.parameters, ownership));
  }
  // Who reads parts in place (a gather, a checkpoint) finds them all of one step.
  const settled: Stage = {
    name: "new parameters are there",
    mode: "collective",
    group: ownership?.group ?? all,
    call: { kind: "barrier" },
  };
  return {
    stages: [
      update,
      ...gathers,
      ...(copies.length > 0 ? [copyBack] : []),
      ...(keepsParameters && ownership?.isInPlace ? [settled] : []),
    ],
    slots: slotRefs([...slots.values()].flat()),
    held,
    scalars: groups.map(({ index, decays, scalars }) => {
      return { rule: index, decays, places: scalars };
    }),
    hashes: groups.flatMap((group) => graphsOf(plan, group).map(hashGraph)),
  };
}

function slotRefs(slots: readonly SlotPlan[]): Map<string, TensorRef> {
  return new Map(
    slots.flatMap(({ name, buffer, layout }) =>
      [...refsOf(layout, buffer)].map(([parameter, ref]) => [`${parameter}.${name}`, ref] as const),
    ),
  );
}

/** The parameters that this rank updates. */
function entriesOf(
  { group, task }: GroupPlan,
  { rank, ranks }: { readonly rank: number; readonly ranks: number },
): readonly LayoutEntry[] {
  return task.axes.length === 0 ? group.entries : (shareEntries(group, ranks)[rank] ?? []);
}

/** What each rank holds of a group's slots, and of what else lies as its parameters do. */
function heldOf(
  { group, slots }: GroupPlan,
  others: readonly Pick<SlotPlan, "buffer" | "layout">[],
  ownership: Ownership,
): Held[] {
  return [...slots, ...others].flatMap(({ buffer, layout }) => {
    const own = layout.groups.find(({ key }) => key === slotGroup(group) || key === group.key);
    const cuts = own === undefined ? [] : cutsOf(ownership, group);
    return cuts.flatMap((cut) =>
      cut.flatMap((part, place) =>
        own === undefined
          ? []
          : {
              buffer,
              rank: ownership.ranks[place] as number,
              ...extentOf(layout, { ...part, group: own }),
            },
      ),
    );
  });
}

/** Tiles of flat vectors, in place; a block of tiles is one graph, tile after tile. */
function elementRuns(
  program: ProgramBuilder,
  plan: FlatVectors,
  group: GroupPlan,
  pieces: readonly Piece[],
): Run[] {
  const { rule, decays, slots, scalars } = group;
  const { tile } = plan.gradients;
  const blocks = pieces.flatMap(({ start, end }) => blocksBetween(start, end));
  return blocks.map((block) => {
    const places = tilePlaces(plan, group, block);
    const type = { dtype: group.group.dtype, shape: [tile] };
    const name = `update.${rule.name}.${decays ? "decay" : "plain"}.${type.dtype}.${block.tiles}`;
    const graph = program.graph(`${name}.${group.index}`, 1, () =>
      updateGraph(name, group, block.tiles, () => ({
        parameter: type,
        slots: Object.fromEntries(slots.map((slot) => [slot.name, updateType(type)])),
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
  plan: FlatVectors,
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
function gatherStages(
  program: ProgramBuilder,
  group: GroupPlan,
  ranks: number,
  all: string,
): Stage[] {
  const names = shareEntries(group.group, ranks).map((own) => own.map(({ name }) => name));
  const places: [string, LayoutGroup][] = [[targetOf(group), group.group]];
  for (const { layout, buffer } of group.slots) {
    // Slots whose types differ from those of the parameters lie in groups of their own.
    const own = layout.groups.filter(({ key }) => key === slotGroup(group.group));
    for (const lies of own) places.push([buffer, lies]);
  }
  return places.map(([buffer, lies]) => gatherStage(program, buffer, lies, { names, group: all }));
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

function scalarInputs(scalars: Readonly<Record<string, TensorRef>>): Record<string, TensorRef> {
  return Object.fromEntries(Object.entries(scalars).map(([name, ref]) => [`scalar.${name}`, ref]));
}
