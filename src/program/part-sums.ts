/**
 * Sums of what ranks have made of the parts of the same samples: each has terms of the gradients of
 * its micro-batches, which are summed over an axis once in a step. Each rank sums a part of what its
 * peers have left it, and writes the sums to all; over nodes they exchange parts by messages.
 */
import { GRADIENTS, gradientBuffer, TERMS } from "./buffers.ts";
import type { FlatVectors } from "./flat.ts";
import { ALIGNMENT, planLayout } from "./layout.ts";
import { type Ownership, updatedSpans } from "./ownership.ts";
import { barrier, type ProgramBuilder, type Run, type Stage, type TensorRef } from "./program.ts";
import { Reducer } from "./reduce.ts";
import { copyRun, treeRun, treeStage } from "./runs.ts";
import { type Combination, planLevels } from "./shares.ts";
import { additionsOf, blocksOf, cutEvenly, type Span, spanRef } from "./spans.ts";
import { Together } from "./together.ts";

/** The ranks of an axis. */
export interface PartsGroup {
  readonly group: string;
  readonly place: number;
  /** As the program calls them, in order. */
  readonly ranks: readonly number[];
  /** Whether the ranks of each such group share a node. */
  readonly isInPlace: boolean;
}

export interface PartSumOptions extends PartsGroup {
  readonly vectors: FlatVectors;
  /** What of the gradient this rank and its wards have. */
  readonly ownership: Ownership | undefined;
  /** Where the terms of the loss lie. */
  readonly terms: readonly TensorRef[];
}

/** Afterwards all ranks of the group have the sums, where their own terms were. */
export function partSums(program: ProgramBuilder, options: PartSumOptions): Stage[] {
  const { group, place, ranks, vectors, ownership, isInPlace } = options;
  program.groups.set(group, ranks);
  program.shared.add(GRADIENTS);
  const spans = vectors.updates.flatMap((update) => updatedSpans(ownership, update.group));
  if (!isInPlace) {
    const summed =
      spans.length === 0 ? [] : sentSums(program, options).stages(spans, `gradients over ${group}`);
    return [...summed, ...termSums(program, options)];
  }
  const inOrder = ranks.slice(1).reduce<Combination>((sum, _, at) => [sum, at + 1], 0);
  const others = ranks.filter((_, at) => at !== place);
  const runOf = (block: Span): Run => {
    const tiles = additionsOf(block);
    const at = (tile: Span, rank: number | undefined): TensorRef => {
      const ref = spanRef(tile, GRADIENTS);
      return rank === undefined ? ref : { ...ref, rank };
    };
    return treeRun(
      program,
      inOrder,
      tiles.map((tile) => at(tile, undefined)),
      (leaf, tile) => at(tiles[tile] as Span, leaf === place ? undefined : ranks[leaf]),
      others.map((rank) => tiles.map((tile) => at(tile, rank))),
    );
  };
  const runs = spans.flatMap((span) =>
    blocksOf(cutEvenly(span, ranks.length)[place] as Span).map(runOf),
  );
  return [
    barrier(`gradients of ${group} are there`, group),
    treeStage(`sum over ${group}`, runs),
    ...termSums(program, options),
    barrier(`gradients are summed over ${group}`, group),
  ];
}

/** Sums over nodes: as of ranks that have a micro-batch each. */
function sentSums(program: ProgramBuilder, { group, place, ranks }: PartsGroup): Reducer {
  const ranges = ranks.map((_, first) => ({ first, count: 1 }));
  const members = ranges.map(({ first }) => [first]);
  const names = { all: group, inner: group, outer: group };
  const levels = planLevels(ranges, members);
  return new Reducer(program, { rank: place, names, levels, bufferOf: gradientBuffer });
}

function termSums(program: ProgramBuilder, options: PartSumOptions): Stage[] {
  const { group, place, ranks, terms } = options;
  const items = terms.map(({ type }, index) => ({ name: `${index}`, type, group: "terms" }));
  const layout = planLayout(items, ALIGNMENT);
  const together = new Together(program, { layout, group, place, ranks: ranks.length });
  const buffer = `${TERMS} of ${group}`;
  together.allocate(buffer);
  const own = terms.map((_, index) => together.ref(`${index}`, buffer) as TensorRef);
  const copies = (name: string, from: readonly TensorRef[], to: readonly TensorRef[]): Stage => {
    const runs = from.map((ref, index) => copyRun(program, ref, to[index] as TensorRef));
    return { name, runs, mode: "small" };
  };
  return [
    copies(`terms of ${group}`, terms, own),
    ...together.summed(buffer, `terms of ${group}`),
    copies(`sums of terms of ${group}`, own, terms),
  ];
}
