/** Places by name: of the fields of a batch, and of all tensors of a flat buffer. */
import { typeOf } from "../graph/index.ts";
import type { Model } from "../nn/index.ts";
import type { TensorType } from "../tensor/index.ts";
import type { Layout } from "./layout.ts";
import type { TensorRef } from "./program.ts";

/** Whole fields: all micro-batches one after the other. */
export function batchRefs(
  model: Model,
  kind: string,
  microBatches: number,
): Map<string, TensorRef> {
  const names = [...model.batch, ...(model.randomKey === undefined ? [] : [model.randomKey])];
  return new Map(
    names.map((name) => {
      const { dtype, shape } = typeOf(model.graph, name);
      const [rows = 1, ...rest] = shape;
      const type: TensorType = { dtype, shape: [rows * microBatches, ...rest] };
      return [name, { buffer: `${kind}.${name}`, byteOffset: 0, type }];
    }),
  );
}

/** Every tensor of a layout, in this buffer. */
export function refsOf(layout: Layout, buffer: string): Map<string, TensorRef> {
  return new Map(
    [...layout.entries.values()].map(({ name, type, byteOffset }) => [
      name,
      { buffer, byteOffset, type },
    ]),
  );
}
