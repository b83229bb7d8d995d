/** How products of matrices are divided. */
import type { Division, DivisionContext } from "../../graph/index.ts";
import { alignedDim, along } from "../divisions.ts";

export interface ProductDims {
  /** The dim of rows in input 0 and in the output; undefined if there is none. */
  readonly rows: readonly [number, number] | undefined;
  /** The dim of columns in input 1 and in the output. */
  readonly columns: readonly [number, number] | undefined;
  /** The dims of inputs 0 and 1 over which products are summed. */
  readonly inner: readonly [number, number];
}

/** A batched product of inputs 0 and 1: by rows, by columns, by matrices, or into terms of sums. */
export function productDivisions(
  context: DivisionContext,
  { rows, columns, inner }: ProductDims,
): Division[] {
  const [a, b] = [context.input(0).shape, context.input(1).shape];
  const shape = context.outputs[0]?.shape ?? [];
  const others = context.inputs.slice(2).map(() => undefined);
  const matrixDims = (rows === undefined ? 0 : 1) + (columns === undefined ? 0 : 1);
  const leading = shape.length - matrixDims;
  // Leading dims are aligned from the right, before those of the matrices.
  const leads = [a.slice(0, -2), b.slice(0, -2)] as const;
  const batches = shape.slice(0, leading).flatMap((size, dim) => {
    const [ofA, ofB] = leads.map((own) => alignedDim(own, leading, dim, size));
    return along(context, { inputs: [ofA, ofB, ...others], outputs: [dim] });
  });
  const byRows =
    rows && along(context, { inputs: [rows[0], undefined, ...others], outputs: [rows[1]] });
  const byColumns =
    columns &&
    along(context, { inputs: [undefined, columns[0], ...others], outputs: [columns[1]] });
  const terms = along(context, { inputs: [...inner, ...others], outputs: ["partial"] });
  return [...batches, ...(byRows ?? []), ...(byColumns ?? []), ...terms];
}
