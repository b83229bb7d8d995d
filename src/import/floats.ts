/**
 * Converts all floats of a file to `dtype`: those of weights, inputs, constants and casts. In this
 * way, models in half types and in float64 are trained in float32. Only the messages are changed:
 * the importer decides what operators mean.
 */

import type { OnnxFile } from "../onnx/index.ts";
import {
  type RawAttribute,
  type RawGraph,
  type RawNode,
  type RawTensor,
  type RawType,
  type RawValueInfo,
  toRawAttribute,
} from "../onnx/index.ts";
import {
  convertTensor,
  DTYPES,
  type DType,
  dtypeFromOnnx,
  isFloat,
  type Tensor,
  tensorFrom,
} from "../tensor/index.ts";

/** The float types in which models from files are trained. */
export type TrainedFloat = "float32" | "float64";

/** The attributes that hold the number of an element type. */
const TYPE_ATTRIBUTES = new Set(["to", "dtype", "output_dtype"]);

export function withFloats(file: OnnxFile, dtype: TrainedFloat): OnnxFile {
  const { model } = file;
  // The engine recognizes equal weights by their memory, so each is converted only once.
  const known = new WeakMap<RawTensor, Tensor>();
  return {
    ...file,
    model: {
      ...model,
      graph: inGraph(model.graph, dtype),
      functions: model.functions.map((item) => ({
        ...item,
        node: item.node.map((node) => inNode(node, dtype)),
        attributeProto: item.attributeProto.map((attribute) => inAttribute(attribute, dtype)),
      })),
    },
    tensor: (raw) => {
      const found = known.get(raw);
      if (found !== undefined) return found;
      const tensor = file.tensor(raw);
      const converted = isFloat(tensor.dtype) ? convertTensor(tensor, dtype) : tensor;
      known.set(raw, converted);
      return converted;
    },
  };
}

function inGraph(graph: RawGraph, dtype: TrainedFloat): RawGraph {
  return {
    ...graph,
    node: graph.node.map((node) => inNode(node, dtype)),
    input: graph.input.map((info) => inInfo(info, dtype)),
    output: graph.output.map((info) => inInfo(info, dtype)),
  };
}

function inInfo(info: RawValueInfo, dtype: TrainedFloat): RawValueInfo {
  const tensorType = info.type?.tensorType;
  if (tensorType === undefined) return info;
  const elemType = inNumber(tensorType.elemType, dtype);
  return { ...info, type: { ...(info.type as RawType), tensorType: { ...tensorType, elemType } } };
}

function inNode(node: RawNode, dtype: TrainedFloat): RawNode {
  // Resize reads its scales as float32, whatever type it resizes.
  const attribute = node.attribute.map((own) => inAttribute(own, dtype));
  const isEmpty = node.opType === "ConstantOfShape" && attribute.length === 0;
  return {
    ...node,
    attribute: isEmpty ? [tensorAttribute("value", tensorFrom(dtype, [1], [0]))] : attribute,
  };
}

function inAttribute(own: RawAttribute, dtype: TrainedFloat): RawAttribute {
  const { name, i, f, floats } = own;
  if (own.g !== undefined) return { ...own, g: inGraph(own.g, dtype) };
  if (i !== undefined && TYPE_ATTRIBUTES.has(name)) return { ...own, i: inNumber(i, dtype) };
  // A Constant whose value is an attribute of float numbers is float32 by definition.
  if (name === "value_float") return tensorAttribute("value", tensorFrom(dtype, [], [f ?? 0]));
  if (name === "value_floats") {
    return tensorAttribute("value", tensorFrom(dtype, [floats.length], floats));
  }
  return own;
}

function tensorAttribute(name: string, tensor: Tensor): RawAttribute {
  return toRawAttribute(name, { kind: "tensor", value: tensor });
}

function inNumber(number: number, dtype: TrainedFloat): number {
  const own: DType | undefined = dtypeFromOnnx(number);
  return own !== undefined && isFloat(own) ? DTYPES[dtype].onnx : number;
}
