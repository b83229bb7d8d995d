/** The forms of a state that several ranks hold in parts. */
import type { Memory } from "../memory/index.ts";
import type { Held } from "../program/index.ts";
import type { TensorType } from "../tensor/index.ts";

/**
 * Finds the memory, and the place in it, of a part of a buffer that another rank holds: of the part
 * of the model that this rank has, or of that at another place.
 */
export type PlaceOf = (
  part: Held,
  place?: number,
) => { readonly memory: Memory; readonly at: number };

/** A tensor under the name `parameters/NAME`, `slots/PARAMETER.SLOT` or `states/NAME`. */
export interface PartedTensor extends TensorType {
  readonly name: string;
  /** In order, without a gap. `owner`: the one rank that holds it; undefined if all ranks do. */
  readonly parts: readonly {
    readonly from: number;
    readonly to: number;
    readonly owner: number | undefined;
  }[];
}
