/** Finds constants that were computed from parameters which the file also has elsewhere. */

import type { OnnxFile, RawTensor } from "../onnx/index.ts";
import { elementCount, type Tensor, tensorFrom } from "../tensor/index.ts";
import type { GraphEdit } from "./edit.ts";
import { repeated, sameBytes } from "./same.ts";
import { moduleOf, type Read, type Weight } from "./weights.ts";

/**
 * Whether an initializer that a module reads was computed from parameters that the file also has at
 * other places. If it was computed from a matrix and zeros (the first state of an unrolled
 * recurrence), it is the bias, repeated for each row; for other results, the parameters are added
 * to `lost`.
 */
export function isOfKnown(
  context: {
    readonly file: OnnxFile;
    readonly floats: ReadonlyMap<string, RawTensor>;
    readonly edit: GraphEdit;
    readonly weights: ReadonlyMap<string, Weight>;
  },
  found: { readonly initializer: string; readonly reads: readonly Read[]; readonly module: string },
  lost: Set<string>,
): boolean {
  const { initializer, reads, module } = found;
  const own = [...context.weights.values()].filter(
    ({ name, role }) => role === "parameter" && moduleOf(name) === module,
  );
  if (own.length === 0) return false;
  const tensor = context.file.tensor(context.floats.get(initializer) as RawTensor);
  const biases = own.filter(({ given, layout }) => {
    const raw = context.floats.get(given);
    return layout === "same" && raw !== undefined && isRepeated(context.file.tensor(raw), tensor);
  });
  const [bias] = biases;
  if (bias === undefined || biases.length > 1) {
    for (const { name } of own) lost.add(name);
    return true;
  }
  const shape = tensorFrom("int64", [tensor.shape.length], tensor.shape);
  context.edit.add(`${initializer}/shape`, shape);
  const value = context.edit.prepend(
    "Expand",
    [bias.name, `${initializer}/shape`],
    `${bias.name}/expanded`,
  );
  for (const read of reads) context.edit.redirect(read, value);
  return true;
}

/** Whether `whole` is a vector, repeated along its last dim. */
function isRepeated(vector: Tensor, whole: Tensor): boolean {
  if (vector.shape.length !== 1 || whole.shape.at(-1) !== vector.shape[0]) return false;
  const rows = {
    ...whole,
    shape: [elementCount(whole.shape) / (vector.shape[0] ?? 1), vector.shape[0] ?? 1],
  };
  const first = repeated(rows);
  return first !== undefined && sameBytes(first, vector);
}
