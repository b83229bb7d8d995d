import { reshape } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { sumAt } from "../indexing/index.ts";
import { POOL_ATTRIBUTES, pooledType } from "./pool.ts";

/**
 * The maximum of each window of X (N, C, sizes). Output 1 is its index into all of X; of several
 * equal maxima, that of the first.
 */
export const maxPool: OperatorDefinition = {
  name: "MaxPool",
  inputs: [1, 1],
  outputs: [1, 2],
  attributes: { ...POOL_ATTRIBUTES, storage_order: { kind: "int", default: 0 } },
  infer: (context) => {
    const type = pooledType(context);
    if (context.attributes.number("storage_order") !== 0) {
      context.fail("indices in column-major order (storage_order 1) are not supported");
    }
    return [type, { dtype: "int64", shape: type.shape }];
  },
  // Windows may overlap, so the gradients of one element are added.
  gradient: (context) => {
    const [x, dy] = [context.input(0), context.gradient(0)];
    const [from, to] = [elementCount(dy.shape), elementCount(x.shape)];
    const at = reshape(context.output(1), [from]);
    const flat = sumAt(at, reshape(dy, [from]), 0, [to]);
    return [reshape(flat, x.shape)];
  },
  flops: (context) =>
    elementCount(context.attributes.numbers("kernel_shape")) *
    elementCount(context.outputs[0]?.shape ?? []),
  inPlace: false,
};
