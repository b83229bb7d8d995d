/** Where the samples of a batch lie in a value. */
import { elementCount, type Shape } from "../../tensor/index.ts";

/** Dim `dim` has the size outer · batch · inner. */
export interface Place {
  readonly dim: number;
  readonly outer: number;
  readonly inner: number;
}

/** The place of the batch after a Reshape, which keeps the order of all elements: as many lie before it as before. */
export function moved(before: Shape, place: Place, after: Shape, from: number): Place | undefined {
  const left = elementCount(before.slice(0, place.dim)) * place.outer;
  const right = elementCount(before.slice(place.dim + 1)) * place.inner;
  const candidates = after.flatMap((_, dim): Place[] => {
    const outer = left / elementCount(after.slice(0, dim));
    const inner = right / elementCount(after.slice(dim + 1));
    const fits = Number.isInteger(outer) && Number.isInteger(inner);
    return fits && outer * from * inner === after[dim] ? [{ dim, outer, inner }] : [];
  });
  // A dim of its own comes first; one sample fits in many places, and exporters leave it where it was.
  const alone = candidates.filter(({ outer, inner }) => outer * inner === 1);
  return alone.find(({ dim }) => dim === place.dim) ?? alone[0] ?? candidates[0];
}
