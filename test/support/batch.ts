/** Model inputs and tensors to read samples into. */
import type { ModelInput, SampleSet } from "../../src/data/index.ts";
import {
  byteLength,
  type DType,
  type Shape,
  type Tensor,
  toNumbers,
} from "../../src/tensor/index.ts";

/** `{ ids: ["int32", [8, 16]] }` as the inputs of a model. */
export function inputsOf(types: Readonly<Record<string, readonly [DType, Shape]>>): ModelInput[] {
  return Object.entries(types).map(([name, [dtype, shape]]) => ({ name, type: { dtype, shape } }));
}

/** Reads samples as numbers, into tensors of the inputs' types with one row for each index. */
export async function readSamples(
  samples: SampleSet,
  inputs: readonly ModelInput[],
  indices: readonly number[],
): Promise<Record<string, number[]>> {
  const into: Record<string, Tensor> = {};
  for (const { name, type } of inputs) {
    const own = { dtype: type.dtype, shape: [indices.length, ...type.shape.slice(1)] };
    into[name] = { ...own, bytes: new Uint8Array(byteLength(own)) };
  }
  await samples.read(indices, into);
  return Object.fromEntries(
    Object.entries(into).map(([name, tensor]) => [name, toNumbers(tensor)]),
  );
}
