/** Constants that were computed from parameters which the file has elsewhere too. */
import { elementCount, type Tensor, tensorFrom } from "../../tensor/index.ts";
import type { OnnxFile } from "../read.ts";
import type { RawTensor } from "../schema.ts";
import type { GraphEdit } from "./edit.ts";
import { repeated, sameBytes } from "./same.ts";
import { moduleOf, type Read, type Weight } from "./weights.ts";

/**
 * Whether an initializer that a module reads is a result of its parameters that the file has at other places too. That of a matrix and zeros (the first
 * state of a recurrence that was written out) is the bias, for each row again; of others the parameters are added to `lost`.
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

/** Whether `whole` is a vector, again and again along its last dim. */
function isRepeated(vector: Tensor, whole: Tensor): boolean {
  if (vector.shape.length !== 1 || whole.shape.at(-1) !== vector.shape[0]) return false;
  const rows = {
    ...whole,
    shape: [elementCount(whole.shape) / (vector.shape[0] ?? 1), vector.shape[0] ?? 1],
  };
  const first = repeated(rows);
  return first !== undefined && sameBytes(first, vector);
}
