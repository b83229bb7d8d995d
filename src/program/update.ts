/** The optimizer's part of a program: slots, scalars, and the stages that update all parameters. */
import { type Rules, type StepContext } from "../optimizer/index.ts";
import { bytesPerElement, elementCount, scalar, type Tensor } from "../tensor/index.ts";
import { GRADIENTS, PARAMETERS, SCRATCH } from "./buffers.ts";
import type { FlatVectors } from "./flat.ts";
import { type JournalPlan, planJournal } from "./journal.ts";
import { type LayoutEntry, type LayoutGroup, refsOf } from "./layout.ts";
import {
  cutsOf,
  extentsOf,
  type Gathered,
  gatherParts,
  type Held,
  heldParts,
  type Ownership,
  updatedSpans,
  wardsOf,
  withoutExtents,
} from "./ownership.ts";
import {
  allGather,
  type BufferSpec,
  barrier,
  type ProgramBuilder,
  type Stage,
  type TensorRef,
} from "./program.ts";
import { copyRun, sweepMode } from "./runs.ts";
import { blocksOf, lengthOf, spanRef, wholeSpans } from "./spans.ts";
import { type GroupPlan, planGroups, slotGroups } from "./update-groups.ts";
import { elementRuns, tensorRuns, updateHashes } from "./update-runs.ts";

export interface UpdatePlan {
  readonly stages: readonly Stage[];
  /** By `PARAMETER.SLOT`. */
  readonly slots: ReadonlyMap<string, TensorRef>;
  /** The parts of slots and parameters that each rank of this one's group looks after. */
  readonly held: readonly Held[];
  readonly gathered: readonly Gathered[];
  readonly scalars: readonly ScalarPlan[];
  /** The hashes of the graphs that update, for each shape that some rank updates. */
  readonly hashes: readonly string[];
  /** Undefined if every rank updates everything. */
  readonly journal: JournalPlan | undefined;
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
  /** The owners of groups that are updated element by element. Default: every rank owns all. */
  readonly ownership?: Ownership | undefined;
  /** Whether new parameters stay with the rank that made them. */
  readonly keepsParameters?: boolean;
  /** The runs at once of an update. Default: 1. */
  readonly lanes?: number;
}

/**
 * Updates of whole tensors are divided among all ranks, those of elements among the ranks that
 * `ownership` names.
 */
export function planUpdate(
  program: ProgramBuilder,
  plan: FlatVectors,
  sharing: UpdateSharing = { rank: 0, ranks: 1, all: "" },
): UpdatePlan {
  const { rank, ranks, all, ownership, keepsParameters = false, lanes = 1 } = sharing;
  const groups = planGroups(program, plan);
  const owners = ownership?.group ?? all;
  const shared = groups.filter(({ task }) => task.granularity === "tensor" && task.axes.length > 0);
  const whole = shared.flatMap((group) => gatherEntries(program, group, ranks, all));
  const gathers = [
    ...whole.map(({ stage }) => stage),
    ...(keepsParameters ? [] : groups).flatMap(({ group, target }) =>
      cutsOf(ownership, group).map((cut) => {
        program.shared.add(target);
        return gatherParts(`new ${group.key} to all`, owners, cut, target);
      }),
    ),
  ];
  const gathered = [
    ...whole.flatMap(({ parts }) => parts),
    ...(keepsParameters ? [] : groups).flatMap(({ group }) =>
      heldParts(ownership, group, [{ buffer: PARAMETERS, group }]).map((part) => {
        return { ...part, isMadeOnce: false };
      }),
    ),
  ];
  const held = groups.flatMap((group) => {
    const lying = group.slots.flatMap((slot) =>
      slotGroups(slot, group.group).map((own) => ({ buffer: slot.buffer, group: own })),
    );
    const kept = keepsParameters ? [{ buffer: PARAMETERS, group: group.group }] : [];
    return heldParts(ownership, group.group, [...lying, ...kept]);
  });
  const here = new Set([rank, ...wardsOf(ownership)]);
  for (const buffer of new Set(held.map((part) => part.buffer))) {
    program.shared.add(buffer);
    const others = held.filter((part) => part.buffer === buffer && !here.has(part.rank));
    const { byteLength } = program.buffers.get(buffer) as BufferSpec;
    program.touches(buffer, withoutExtents([{ byteOffset: 0, byteLength }], others));
  }
  // What every rank updates for itself is not lost with one of them.
  const isLogged = shared.length > 0 || held.length > 0 || gathers.length > 0;
  const runs = groups.flatMap((group) => {
    const { group: own, task, rule } = group;
    if (rule.granularity === "element") {
      return elementRuns(program, group, updatedSpans(ownership, own), isLogged);
    }
    const entries = task.axes.length === 0 ? own.entries : (shareEntries(own, ranks)[rank] ?? []);
    return tensorRuns(program, group, entries);
  });
  if (isLogged) {
    // All ranks share the same buffers, also one that has nothing to update.
    for (const { slots, target } of groups) {
      const own = slots.map(({ buffer }) => buffer);
      for (const buffer of [PARAMETERS, GRADIENTS, target, ...own]) program.shared.add(buffer);
    }
  }
  const isSwept = groups.every(({ rule }) => rule.granularity === "element");
  const mode = isSwept ? sweepMode(lengthOf(wholeSpans(plan.parameters)), 2) : "parallel";
  const owned = keepsParameters ? ownership : undefined;
  const scratched = groups.filter(({ target }) => target === SCRATCH);
  if (scratched.length > 0) {
    program.buffer(SCRATCH, plan.parameters.byteLength, plan.spaces.parameters);
    if (keepsParameters) {
      program.touches(SCRATCH, extentsOf(plan.parameters, ownership, updatedSpans));
    }
  }
  const copies = scratched.flatMap(({ group }) =>
    updatedSpans(owned, group)
      .flatMap(blocksOf)
      .map((block) => copyRun(program, spanRef(block, SCRATCH), spanRef(block, PARAMETERS))),
  );
  const copyBack: Stage = { name: "copy back", runs: copies, mode: "parallel" };
  // Who reads parts in place (a gather, a checkpoint) finds them all of one step. And whoever is
  // at the end of a commit knows that all others have made their updates.
  const isEndedTogether = owned !== undefined || (ownership?.buddies.length ?? 0) > 0;
  return {
    stages: [
      { name: "update", runs, mode, ...(isLogged ? { isLogged } : {}) },
      ...gathers,
      ...(scratched.length > 0 ? [copyBack] : []),
      ...(isEndedTogether ? [barrier("new parameters are there", owners)] : []),
    ],
    slots: slotRefs(groups),
    held,
    gathered,
    scalars: groups.map(({ index, decays, scalars }) => {
      return { rule: index, decays, places: scalars };
    }),
    hashes: groups.flatMap(updateHashes),
    journal: isLogged ? planJournal(program, runs, lanes) : undefined,
  };
}

function slotRefs(groups: readonly GroupPlan[]): Map<string, TensorRef> {
  const slots = new Set(groups.flatMap((group) => group.slots));
  return new Map(
    [...slots].flatMap(({ name, buffer, layout }) =>
      [...refsOf(layout, buffer)].map(([parameter, ref]) => [`${parameter}.${name}`, ref] as const),
    ),
  );
}

/**
 * The entries that each rank updates. An update of whole tensors (Muon's matrices) costs as much as
 * a micro-batch, so each rank updates consecutive entries, of about as many elements for each rank.
 */
function shareEntries(group: LayoutGroup, ranks: number): readonly LayoutEntry[][] {
  const shares = Array.from({ length: ranks }, (): LayoutEntry[] => []);
  const total = group.entries.reduce((sum, { type }) => sum + elementCount(type.shape), 0);
  let before = 0;
  for (const entry of group.entries) {
    const count = elementCount(entry.type.shape);
    // An entry goes to the rank in whose even share its middle lies.
    const middle = (before + count / 2) / Math.max(1, total);
    shares[Math.min(ranks - 1, Math.floor(middle * ranks))]?.push(entry);
    before += count;
  }
  return shares;
}

interface EntryGather {
  readonly stage: Stage;
  /** What each rank gives, where it lies at the end of the update. */
  readonly parts: readonly Gathered[];
}

/** What each rank has updated goes to all: parameters, and slots, so that all ranks stay alike. */
function gatherEntries(
  program: ProgramBuilder,
  { group, slots, target }: GroupPlan,
  ranks: number,
  all: string,
): EntryGather[] {
  const shares = shareEntries(group, ranks).map((own) => new Set(own.map(({ name }) => name)));
  const places = [
    [target, group] as const,
    ...slots.flatMap((slot) => slotGroups(slot, group).map((own) => [slot.buffer, own] as const)),
  ];
  return places.map(([buffer, { entries, dtype, length, byteOffset }]) => {
    program.shared.add(buffer);
    // Each rank's part begins at its first entry. A rank without entries has an empty part.
    const starts = shares.map((names) => entries.find(({ name }) => names.has(name))?.byteOffset);
    let next = length;
    const counts = starts.toReversed().map((start, fromEnd) => {
      const isFirst = fromEnd === ranks - 1;
      const own = start === undefined ? next : (start - byteOffset) / bytesPerElement(dtype);
      const count = next - (isFirst ? 0 : own);
      next -= count;
      return count;
    });
    const own = { counts: counts.toReversed(), dtype };
    const stage = allGather(`new ${buffer} to all`, all, own, { buffer, byteOffset });
    let at = byteOffset;
    const parts = own.counts.map((count, rank): Gathered => {
      const extent = { byteOffset: at, byteLength: count * bytesPerElement(dtype) };
      at += extent.byteLength;
      return { buffer: buffer === target ? PARAMETERS : buffer, rank, ...extent, isMadeOnce: true };
    });
    return { stage, parts };
  });
}
