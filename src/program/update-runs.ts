/** An optimizer's rule as graphs: over blocks of tiles, or over whole parameters. */
import { cast } from "../functional/index.ts";
import { type Graph, hashGraph, type Value } from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import { updateType } from "../optimizer/index.ts";
import { buildNamed } from "../plan/index.ts";
import { elementCount } from "../tensor/index.ts";
import { GRADIENTS, PARAMETERS } from "./buffers.ts";
import { entryRef, type LayoutEntry, type LayoutGroup } from "./layout.ts";
import type { ProgramBuilder, Run, TensorRef } from "./program.ts";
import { blocksOf, blocksOfTiles, type Span, spanRef, tilesOf, wholeSpan } from "./spans.ts";
import { type GroupPlan, type SlotPlan, slotGroups } from "./update-groups.ts";

/** What is updated by itself: a tile, or a whole parameter. Places by name: `parameter`, slots. */
interface Part {
  readonly parameter: TensorRef;
  /** The place of the new parameter. */
  readonly target: TensorRef;
  readonly gradient: TensorRef;
  readonly slots: Readonly<Record<string, TensorRef>>;
}

/** Tiles in a block whose old values go to the journal first: few, so that they stay in a cache. */
const LOGGED_BLOCKS = [4, 1] as const;

/** The runs that update these spans in place: a block of tiles is one graph, tile after tile. */
export function elementRuns(
  program: ProgramBuilder,
  group: GroupPlan,
  spans: readonly Span[],
  isLogged: boolean,
): Run[] {
  const blocks = spans.flatMap((span) =>
    isLogged ? blocksOfTiles(span, LOGGED_BLOCKS) : blocksOf(span),
  );
  return blocks.map((block) => {
    const parts = tilesOf(block).map((tile) => tilePart(group, tile));
    return updateRun(program, group, `${parts.length}`, parts);
  });
}

/** One run for each parameter, in its shape. The largest is first, so that threads end together. */
export function tensorRuns(
  program: ProgramBuilder,
  group: GroupPlan,
  entries: readonly LayoutEntry[],
): Run[] {
  const sized = entries.toSorted((a, b) => elementCount(b.type.shape) - elementCount(a.type.shape));
  return sized.map((entry) =>
    updateRun(program, group, entry.type.shape.join("x"), [tensorPart(group, entry)]),
  );
}

/** Hashes of a group's update, for each shape: the same on all ranks, whatever blocks they run. */
export function updateHashes(group: GroupPlan): string[] {
  const { rule, decays, group: own } = group;
  const [tile] = tilesOf(wholeSpan(own));
  const parts =
    rule.granularity === "tensor"
      ? own.entries.map((entry) => tensorPart(group, entry))
      : [tilePart(group, tile as Span)];
  const name = `${rule.name} ${decays ? "decays" : "plain"}`;
  return parts.map((part) => hashGraph(updateGraph(name, group, [part])));
}

function tilePart(group: GroupPlan, tile: Span): Part {
  return partOf(
    group,
    (buffer) => spanRef(tile, buffer),
    (slot) => {
      const [own] = slotGroups(slot, group.group);
      return spanRef({ ...tile, group: own as LayoutGroup }, slot.buffer);
    },
  );
}

function tensorPart(group: GroupPlan, { name, type, byteOffset }: LayoutEntry): Part {
  return partOf(
    group,
    (buffer) => ({ buffer, byteOffset, type }),
    ({ layout, buffer }) => entryRef(layout, buffer, name) as TensorRef,
  );
}

function partOf(
  { slots, target }: GroupPlan,
  refIn: (buffer: string) => TensorRef,
  slotRef: (slot: SlotPlan) => TensorRef,
): Part {
  return {
    parameter: refIn(PARAMETERS),
    target: refIn(target),
    gradient: refIn(GRADIENTS),
    slots: Object.fromEntries(slots.map((slot) => [slot.name, slotRef(slot)])),
  };
}

function updateRun(
  program: ProgramBuilder,
  group: GroupPlan,
  size: string,
  parts: readonly Part[],
): Run {
  const { rule, decays, scalars, index } = group;
  const { dtype } = group.group;
  const name = `update.${rule.name}.${decays ? "decay" : "plain"}.${dtype}.${size}`;
  const graph = program.graph(`${name}.${index}`, 1, () => updateGraph(name, group, parts));
  const inputs: Record<string, TensorRef> = {};
  const outputs: Record<string, TensorRef> = {};
  for (const [scalar, ref] of Object.entries(scalars)) inputs[`scalar.${scalar}`] = ref;
  for (const [at, { parameter, target, gradient, slots }] of parts.entries()) {
    inputs[`parameter.${at}`] = parameter;
    inputs[`gradient.${at}`] = gradient;
    outputs[`parameter.${at}/next`] = target;
    for (const [slot, ref] of Object.entries(slots)) {
      inputs[`${slot}.${at}`] = ref;
      outputs[`${slot}.${at}/next`] = ref;
    }
  }
  return { graph, inputs, outputs };
}

/** The update of parts, one after the other. */
function updateGraph(
  name: string,
  { rule, decays, group, scalars }: GroupPlan,
  parts: readonly Part[],
): Graph {
  const builder = newBuilder(name);
  const { dtype } = updateType({ dtype: group.dtype, shape: [] });
  const scalarValues = new Map(
    Object.keys(scalars).map((scalar) => {
      return [scalar, builder.input(`scalar.${scalar}`, { dtype, shape: [] })];
    }),
  );
  const outputs = new Map<string, Value>();
  for (const [at, { parameter, slots }] of parts.entries()) {
    const slotValues = new Map(
      Object.entries(slots).map(([slot, { type }]) => [slot, builder.input(`${slot}.${at}`, type)]),
    );
    const next = rule.update({
      builder,
      parameter: cast(builder.input(`parameter.${at}`, parameter.type), dtype),
      gradient: cast(builder.input(`gradient.${at}`, parameter.type), dtype),
      slot: (slot) => slotValues.get(slot) as Value,
      scalar: (scalar) => scalarValues.get(scalar) as Value,
      decays,
    });
    outputs.set(`parameter.${at}/next`, cast(next.parameter, parameter.type.dtype));
    for (const [slot, value] of Object.entries(next.slots)) {
      outputs.set(`${slot}.${at}/next`, value);
    }
  }
  return buildNamed(builder, outputs);
}
