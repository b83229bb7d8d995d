import type { OperatorDefinition } from "../../graph/index.ts";
import { reduceSum } from "./reduce-sum.ts";

export const reduce = {
  ReduceSum: reduceSum,
} satisfies Record<string, OperatorDefinition>;
