export type { AttributeInput, AttributeInputs } from "./attributes.ts";
export { encodeAttributes, readAttributes } from "./attributes.ts";
export { type EmitOptions, type Expectation, GraphBuilder, type Value } from "./builder.ts";
export type { Division, DivisionContext, DivisionRule, LocalContext } from "./division.ts";
export {
  type Attributes,
  type AttributeValue,
  type Graph,
  type Node,
  typeOf,
  validateGraph,
} from "./graph.ts";
export { hashGraph } from "./hash.ts";
export { type InferRequest, inferContext, inferContextOf, inferTypes } from "./infer.ts";
export {
  type GraphJson,
  graphFromJson,
  graphToJson,
  type TypeJson,
  typeFromJson,
  typeToJson,
} from "./json.ts";
export type {
  BatchContext,
  BatchRule,
  CostContext,
  ElementForm,
  GradientContext,
  GradientRule,
  IndexUse,
  OperatorDefinition,
  OperatorTable,
  Picks,
  Within,
} from "./operator.ts";
export { type PrintOptions, printGraph } from "./print.ts";
export { type Reach, reach } from "./reach.ts";
export type {
  AttributeKind,
  AttributeReader,
  AttributeSpec,
  InferContext,
  OperatorSignature,
} from "./signature.ts";
export { removeUnused, type SliceOptions, sliceGraph, withOutputs } from "./slice.ts";
