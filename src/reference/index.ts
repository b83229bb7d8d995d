export { evaluateNode, interpret } from "./interpreter.ts";
export { fromTensor, type ReferenceTensor, toTensor } from "./tensor.ts";
