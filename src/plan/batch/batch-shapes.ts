/** Compares the shapes of a value for two sizes of the batch. */
import type { Shape } from "../../tensor/index.ts";

/** The end of a sentence that begins with "this node". */
export const RELATES = "relates the samples of a batch to each other";
const OTHER = "has different dims at another size of the batch";
type Fault = typeof RELATES | typeof OTHER;

export class BatchShapes {
  readonly isFixed: boolean;
  readonly #part: number;
  readonly #share: number;

  /** @param part, whole the two sizes; the same size twice for a model that has one only */
  constructor(part: number, whole: number) {
    this.isFixed = part === whole;
    this.#part = part;
    this.#share = part / whole;
  }

  /**
   * Whether one dim is the batch (`rows`), or none.
   * @param isOfRows whether the value is made of values that have the dim of the batch
   */
  relate(part: Shape, whole: Shape, isOfRows: boolean): "same" | "rows" | Fault {
    if (part.length !== whole.length) return OTHER;
    if (this.isFixed) {
      // Nothing shows which dim is the batch, so a dim that can be the batch counts as it.
      const isRows = isOfRows && part.some((size) => size % this.#part === 0);
      return isRows ? "rows" : "same";
    }
    const dims = part.flatMap((size, dim) => (size === whole[dim] ? [] : [dim]));
    if (dims.length === 0) return "same";
    const isShared = dims.every((dim) => {
      const share = (part[dim] as number) / (whole[dim] as number);
      return Math.abs(share - this.#share) < 1e-9;
    });
    return dims.length === 1 && isShared ? "rows" : RELATES;
  }
}
