/** The interface of reference kernels. They are written for clarity; speed does not matter. */
import { assert } from "../errors.ts";
import type { AttributeReader } from "../graph/index.ts";
import {
  broadcastShapes,
  elementCount,
  type Shape,
  stridesOf,
  type TensorType,
} from "../tensor/index.ts";
import type { ReferenceTensor } from "./tensor.ts";

export interface KernelContext {
  readonly op: string;
  readonly inputs: readonly (ReferenceTensor | undefined)[];
  readonly attributes: AttributeReader;
  /** The inferred types of the outputs. */
  readonly outputs: readonly TensorType[];
  input(index: number): ReferenceTensor;
  /** The type of output `index`. */
  output(index: number): TensorType;
}

/** Computes all outputs of a node. The interpreter rounds them to their element types. */
export type Kernel = (context: KernelContext) => readonly ReferenceTensor[];

/** The multi-index of a flat index. */
export function unravel(index: number, shape: Shape): number[] {
  return stridesOf(shape).map((stride, dim) => Math.floor(index / stride) % (shape[dim] as number));
}

/** The flat index of a multi-index. */
export function ravel(indices: readonly number[], shape: Shape): number {
  const strides = stridesOf(shape);
  return indices.reduce((sum, index, dim) => sum + index * (strides[dim] as number), 0);
}

/** Reads `tensor` as if it were broadcast to `shape`: a function of the flat index there. */
export function broadcastReader(tensor: ReferenceTensor, shape: Shape): (index: number) => number {
  const lead = shape.length - tensor.shape.length;
  const own = stridesOf(tensor.shape);
  const strides = stridesOf(shape);
  return (index) => {
    let flat = 0;
    for (let dim = 0; dim < tensor.shape.length; dim++) {
      if (tensor.shape[dim] === 1) continue;
      const at =
        Math.floor(index / (strides[lead + dim] as number)) % (shape[lead + dim] as number);
      flat += at * (own[dim] as number);
    }
    return tensor.data[flat] as number;
  };
}

/** A kernel that works element by element over broadcast inputs. */
export function elementwiseKernel(compute: (...values: number[]) => number): Kernel {
  return ({ inputs, output }) => {
    const present = inputs.filter((input) => input !== undefined);
    const shape = broadcastShapes(...present.map((input) => input.shape));
    assert(shape !== undefined, "shapes were checked by inference");
    const readers = present.map((input) => broadcastReader(input, shape));
    const data = new Float64Array(elementCount(shape));
    for (let i = 0; i < data.length; i++) data[i] = compute(...readers.map((read) => read(i)));
    return [{ dtype: output(0).dtype, shape, data }];
  };
}
