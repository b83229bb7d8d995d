import type { OperatorDefinition } from "../../graph/index.ts";
import { cumSum } from "./cum-sum.ts";
import { gather } from "./gather.ts";
import { gatherElements } from "./gather-elements.ts";
import { gatherND } from "./gather-nd.ts";
import { oneHot } from "./one-hot.ts";
import { reverseSequence } from "./reverse-sequence.ts";
import { scatterElements } from "./scatter-elements.ts";
import { scatterND } from "./scatter-nd.ts";
import { topK } from "./top-k.ts";

export { sumAt } from "./shared.ts";

export const indexing = {
  CumSum: cumSum,
  Gather: gather,
  GatherElements: gatherElements,
  GatherND: gatherND,
  OneHot: oneHot,
  ReverseSequence: reverseSequence,
  ScatterElements: scatterElements,
  ScatterND: scatterND,
  TopK: topK,
} satisfies Record<string, OperatorDefinition>;
