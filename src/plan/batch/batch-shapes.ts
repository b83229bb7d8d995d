/** Compares the shapes of a value for two sizes of the batch. */
import type { Shape } from "../../tensor/index.ts";

/** The end of a sentence that begins with "this node". */
export const RELATES = "relates the samples of a batch to each other";
const OTHER = "has different dims at another size of the batch";
type Fault = typeof RELATES | typeof OTHER;

/**
 * Whether one dim of a value is the batch (`rows`), or none.
 * @param sizes the numbers of samples of a part and of the whole; equal for a model of one size
 * @param isOfRows whether the value is made of values that have the dim of the batch
 */
export function relateShapes(
  [ofPart, ofWhole]: readonly [part: number, whole: number],
  part: Shape,
  whole: Shape,
  isOfRows: boolean,
): "same" | "rows" | Fault {
  if (part.length !== whole.length) return OTHER;
  if (ofPart === ofWhole) {
    // Nothing shows which dim is the batch, so a dim that can be the batch counts as it.
    return isOfRows && part.some((size) => size % ofPart === 0) ? "rows" : "same";
  }
  const dims = part.flatMap((size, dim) => (size === whole[dim] ? [] : [dim]));
  if (dims.length === 0) return "same";
  const isShared = dims.every((dim) => {
    const share = (part[dim] as number) / (whole[dim] as number);
    return Math.abs(share - ofPart / ofWhole) < 1e-9;
  });
  return dims.length === 1 && isShared ? "rows" : RELATES;
}
