/** What a rank's part of a dim consists of: whole units such as heads, and elements at places. */
import { add, mul } from "../functional/index.ts";
import type { DivisionContext, LocalContext, Value } from "../graph/index.ts";
import { tensorFrom } from "../tensor/index.ts";
import { sectioned } from "./divisions.ts";

/**
 * The context with those proportions of sections in which every section has the same number of
 * whole units for each rank. A dim is made of `counts` units of equal size: heads, or groups.
 */
export function inUnits(context: DivisionContext, ...counts: readonly number[]): DivisionContext {
  const proportions = context.proportions.filter((proportion) =>
    counts.every((count) => sectioned(0, count, proportion, context.ranks) !== "impossible"),
  );
  return { ...context, proportions };
}

/** The context with dims of one section only. */
export function unsectioned(context: DivisionContext): DivisionContext {
  return { ...context, proportions: [[1]] };
}

/**
 * The indices in the whole dim of the elements that a rank has of it, in order: an int64 vector.
 * @param sections the sizes of the dim's sections, each of which is cut evenly
 */
export function placesOfPart(
  { builder, ranks, place }: Pick<LocalContext, "builder" | "ranks" | "place">,
  sections: readonly number[],
): Value {
  const first: number[] = [];
  const step: number[] = [];
  let start = 0;
  for (const size of sections) {
    const own = size / ranks;
    for (let at = 0; at < own; at++) {
      first.push(start + at);
      step.push(own);
    }
    start += size;
  }
  const list = (numbers: readonly number[]) =>
    builder.constant(tensorFrom("int64", [numbers.length], numbers));
  return add(list(first), mul(list(step), place()));
}
