/**
 * The sum of all ranks' contributions, as stages. Each rank sums its own part of the flat gradient, in the order of the
 * tree, then all parts go to all. Where memory is shared, contributions are read in place; elsewhere the pieces
 * that a rank needs are sent to it first. Both ways compute the same graph, so they give the same bits.
 */
import { add } from "../functional/index.ts";
import type { Value } from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import { bytesPerElement } from "../tensor/index.ts";
import type { Layout, LayoutGroup } from "./layout.ts";
import { buildNamed } from "./named.ts";
import {
  type ProgramBuilder,
  peerBuffer,
  type Run,
  type Stage,
  type TensorRef,
} from "./program.ts";
import { type Combination, type Contribution, evenCuts, type Shares } from "./shares.ts";
import { type Block, blockRef, blocksBetween, sweepMode } from "./sweep.ts";

export interface ReduceOptions {
  readonly rank: number;
  readonly shares: Shares;
  /** Peers' memory can be read in place. */
  readonly inPlace: boolean;
  /** The buffer of a rank's contribution, laid out by `layout`. That of slot 0 gets the sum. */
  readonly bufferOf: (slot: number) => string;
}

/** Where an element of a contribution is read: in the peer's memory, or where its copy lies. */
type PlaceOf = (contribution: Contribution, group: LayoutGroup, block: Block) => TensorRef;

export function planReduce(
  program: ProgramBuilder,
  layout: Layout,
  options: ReduceOptions,
): Stage[] {
  const { rank, shares, inPlace, bufferOf } = options;
  const ranks = shares.ranges.length;
  const cutsOf = (group: LayoutGroup) => evenCuts(group.length / layout.tile, ranks);
  const before: Stage[] = [];
  let placeOf: PlaceOf;
  if (inPlace) {
    before.push({
      name: "all ranks have their gradients",
      mode: "collective",
      call: { kind: "barrier" },
    });
    placeOf = (from, group, block) => {
      const own = bufferOf(from.slot);
      const buffer = from.rank === rank ? own : peerBuffer(own, from.rank);
      return blockRef(buffer, layout, group, block);
    };
  } else {
    const exchange = planExchange(program, layout, options);
    before.push(...exchange.stages);
    placeOf = exchange.placeOf;
  }
  const runs = layout.groups.flatMap((group) => {
    const { start, end } = cutsOf(group)[rank] as { start: number; end: number };
    return blocksBetween(start, end).map((block): Run => {
      const parts = shares.contributions.map((from) => placeOf(from, group, block));
      const total = blockRef(bufferOf(0), layout, group, block);
      const graph = treeGraph(program, shares.combination, parts, block);
      const inputs = Object.fromEntries(parts.map((part, index) => [`part.${index}`, part]));
      return { graph, inputs, outputs: { total } };
    });
  });
  const sum: Stage = {
    name: "sum of ranks",
    runs,
    mode: sweepMode(layout.groups, (0.25 * shares.contributions.length) / ranks),
  };
  const gathers = layout.groups.map((group): Stage => {
    const counts = cutsOf(group).map(({ start, end }) => (end - start) * layout.tile);
    const { dtype, length: count, byteOffset } = group;
    const call = { kind: "allGather" as const, count, counts, dtype };
    const data = { buffer: bufferOf(0), byteOffset };
    return { name: `parts of ${group.key} to all`, mode: "collective", call, data };
  });
  return [...before, sum, ...gathers];
}

/** Pieces of contributions, slot by slot, to the ranks that sum them. */
function planExchange(
  program: ProgramBuilder,
  layout: Layout,
  { rank, shares, bufferOf }: ReduceOptions,
): { stages: Stage[]; placeOf: PlaceOf } {
  const ranks = shares.ranges.length;
  const places = new Map<string, number>(); // byte offset in the buffer of copies
  const stages: Stage[] = [];
  let copies = 0;
  for (let slot = 0; slot < shares.slots; slot++) {
    const givers = new Set(
      shares.contributions.filter((from) => from.slot === slot).map((from) => from.rank),
    );
    for (const group of layout.groups) {
      const cuts = evenCuts(group.length / layout.tile, ranks);
      const elements = ({ start, end }: { start: number; end: number }) =>
        (end - start) * layout.tile;
      const own = elements(cuts[rank] as (typeof cuts)[number]);
      const sendCounts = cuts.map((cut) => (givers.has(rank) ? elements(cut) : 0));
      const receiveCounts = cuts.map((_, from) => (givers.has(from) ? own : 0));
      const into = { buffer: "copies", byteOffset: copies };
      for (const [from, count] of receiveCounts.entries()) {
        places.set(`${slot} ${from} ${group.byteOffset}`, copies);
        copies += count * bytesPerElement(group.dtype);
      }
      const data = { buffer: bufferOf(slot), byteOffset: group.byteOffset };
      const call = { kind: "allToAll" as const, sendCounts, receiveCounts, dtype: group.dtype };
      const name = `pieces of ${group.key}.${slot} to those who sum them`;
      stages.push({ name, mode: "collective", call, data, into });
    }
  }
  program.shared.add(program.buffer("copies", copies));
  const placeOf: PlaceOf = (from, group, { firstTile, tiles }) => {
    const { start } = evenCuts(group.length / layout.tile, ranks)[rank] as { start: number };
    const base = places.get(`${from.slot} ${from.rank} ${group.byteOffset}`) as number;
    const offset = (firstTile - start) * layout.tile * bytesPerElement(group.dtype);
    const type = { dtype: group.dtype, shape: [tiles * layout.tile] };
    return { buffer: "copies", byteOffset: base + offset, type };
  };
  return { stages, placeOf };
}

function treeGraph(
  program: ProgramBuilder,
  combination: Combination,
  parts: readonly TensorRef[],
  { tiles }: Block,
): string {
  const type = (parts[0] as TensorRef).type;
  // Ranges may change in a run, and the shape of the tree with them.
  return program.graph(`tree.${JSON.stringify(combination)}.${type.dtype}.${tiles}`, 1, () => {
    const builder = newBuilder("tree");
    const values = parts.map((_, index) => builder.input(`part.${index}`, type));
    const resolve = (part: Combination): Value =>
      typeof part === "number" ? (values[part] as Value) : add(resolve(part[0]), resolve(part[1]));
    return buildNamed(builder, new Map([["total", resolve(combination)]]));
  });
}
