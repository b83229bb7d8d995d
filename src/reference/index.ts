export { interpretRanks, partOf, wholeOf } from "./collective.ts";
export { evaluateNode, interpret } from "./interpreter.ts";
export { evaluateSurely } from "./surely.ts";
export { fromTensor, type ReferenceTensor, toTensor } from "./tensor.ts";
