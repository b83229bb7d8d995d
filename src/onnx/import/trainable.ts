/** Which weights of a model can be trained at all. */
import { elementCount, isFloat, type Tensor } from "../../tensor/index.ts";
import type { RawGraph } from "../schema.ts";

/** Inputs that are settings or statistics, never weights, by operator. */
const SETTINGS: Readonly<Record<string, readonly number[]>> = {
  BatchNormalization: [3, 4],
  Clip: [1, 2],
  Pad: [1, 2],
  Dropout: [1, 2],
  Resize: [1, 2, 3],
  Upsample: [1],
  OneHot: [1, 2],
  Range: [0, 1, 2],
  Expand: [1],
  Tile: [1],
  Reshape: [1],
  ConstantOfShape: [0],
};

/** Names of the initializers that nodes read as settings. */
export function settingNames(graph: RawGraph): ReadonlySet<string> {
  const names = new Set<string>();
  for (const node of graph.node) {
    for (const index of SETTINGS[node.opType] ?? []) {
      const name = node.input[index];
      if (name !== undefined && name !== "") names.add(name);
    }
  }
  return names;
}

/** Names of the running statistics that training replaces; `all`: also where the file has them fixed. */
export function statisticNames(graph: RawGraph, all: boolean): ReadonlySet<string> {
  const names = new Set<string>();
  for (const node of graph.node) {
    if (node.opType !== "BatchNormalization") continue;
    const training = node.attribute.some(({ name, i }) => name === "training_mode" && i === 1);
    // Before version 14, training was told by the number of outputs.
    if (!all && !training && node.output.length === 1) continue;
    for (const name of node.input.slice(3, 5)) names.add(name);
  }
  return names;
}

/**
 * What weights are called in the module that a file was exported from: PyTorch names those that it transposed or merged
 * `onnx::MatMul_185`, but the node that reads it is `/blocks.0/qkv/MatMul`: this gives `blocks.0.qkv.weight`.
 */
export function moduleNames(graph: RawGraph): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  for (const { name, opType, input } of graph.node) {
    const [empty, ...parts] = name.split("/");
    if (empty !== "" || parts.length < 2) continue;
    const module = parts.slice(0, -1).join(".");
    for (const [index, weight] of input.entries()) {
      if (!weight.startsWith("onnx::") || names.has(weight)) continue;
      const isBias = (opType === "Conv" || opType === "Gemm") && index === 2;
      names.set(weight, `${module}.${isBias ? "bias" : "weight"}`);
    }
  }
  return names;
}

/** Weights unless told otherwise: floats with more than one element (converters write scalars as weights too). */
export function isWeight(tensor: Tensor): boolean {
  return isFloat(tensor.dtype) && elementCount(tensor.shape) > 1;
}

/**
 * Whether all elements are equal. Exporters merge weights that happen to be equal (fresh scales and biases of
 * normalization) into one; only weights that differ within can have been tied on purpose.
 */
export function isUniform(tensor: Tensor): boolean {
  const { bytes } = tensor;
  const count = elementCount(tensor.shape);
  if (count === 0) return true;
  const width = bytes.byteLength / count;
  // Equal to itself moved by one element: then every element equals the one before.
  return Buffer.compare(bytes.subarray(width), bytes.subarray(0, bytes.byteLength - width)) === 0;
}
