/** How operators are divided that give the same elements, in the same order, another shape. */
import type { Division, DivisionContext } from "../../graph/index.ts";
import type { Shard } from "../../mesh/index.ts";
import { elementCount, type Shape } from "../../tensor/index.ts";
import { divisionOf, sectioned } from "../divisions.ts";

/** A dim of a shape: `outer` is the product of the sizes before it, `inner` of those behind it. */
interface Dim {
  readonly dim: number;
  readonly size: number;
  readonly outer: number;
  readonly inner: number;
}

/** More sections than this are not considered. */
const MOST_SECTIONS = 64;

/**
 * A dim of the input that is cut is a dim of the output that is cut, in as many sections as there
 * are of it: rows (batch 4, length 256) that are cut by length are 4 sections of 1024 rows.
 */
export function sameElements(context: DivisionContext, local?: Division["local"]): Division[] {
  const result = context.outputs[0]?.shape ?? [];
  const others = context.inputs.slice(1).map(() => undefined);
  return dimsOf(context.input(0).shape).flatMap((from) =>
    dimsOf(result).flatMap((to) =>
      pairsOf(context, from, to).map(([own, made]) => divisionOf([own, ...others], [made], local)),
    ),
  );
}

function dimsOf(shape: Shape): Dim[] {
  return shape.flatMap((size, dim) =>
    size === 1
      ? []
      : [
          {
            dim,
            size,
            outer: elementCount(shape.slice(0, dim)),
            inner: elementCount(shape.slice(dim + 1)),
          },
        ],
  );
}

/** The placements of two dims, such that a rank holds the same elements. */
function pairsOf(
  { proportions, ranks }: DivisionContext,
  from: Dim,
  to: Dim,
): (readonly [Shard, Shard])[] {
  const [fine, coarse] = from.outer >= to.outer ? [from, to] : [to, from];
  const repeats = fine.outer / coarse.outer;
  // The coarse dim consists of whole runs of the fine one.
  const isWithin = coarse.size * coarse.inner === repeats * fine.size * fine.inner;
  if (!Number.isInteger(repeats) || repeats > MOST_SECTIONS || !isWithin) return [];
  return proportions.flatMap((proportion): (readonly [Shard, Shard])[] => {
    const own = sectioned(fine.dim, fine.size, proportion, ranks);
    if (own === "impossible") return [];
    const once = (own.sections ?? [fine.size]).map((size) => (size * fine.inner) / coarse.inner);
    const sections = Array.from({ length: repeats }, () => once).flat();
    const isEven = sections.every((size) => size > 0 && size % ranks === 0);
    if (!isEven || sections.length > MOST_SECTIONS) return [];
    const other = sections.length === 1 ? { shard: coarse.dim } : { shard: coarse.dim, sections };
    return [fine === from ? [own, other] : [other, own]];
  });
}
