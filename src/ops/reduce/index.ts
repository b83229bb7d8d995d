import type { OperatorDefinition } from "../../graph/index.ts";
import { argMax } from "./arg-max.ts";
import { argMin } from "./arg-min.ts";
import { reduceL1 } from "./reduce-l1.ts";
import { reduceL2 } from "./reduce-l2.ts";
import { reduceLogSum } from "./reduce-log-sum.ts";
import { reduceLogSumExp } from "./reduce-log-sum-exp.ts";
import { reduceMax } from "./reduce-max.ts";
import { reduceMean } from "./reduce-mean.ts";
import { reduceMin } from "./reduce-min.ts";
import { reduceProd } from "./reduce-prod.ts";
import { reduceSum } from "./reduce-sum.ts";
import { reduceSumSquare } from "./reduce-sum-square.ts";

export const reduce = {
  ArgMax: argMax,
  ArgMin: argMin,
  ReduceL1: reduceL1,
  ReduceL2: reduceL2,
  ReduceLogSum: reduceLogSum,
  ReduceLogSumExp: reduceLogSumExp,
  ReduceMax: reduceMax,
  ReduceMean: reduceMean,
  ReduceMin: reduceMin,
  ReduceProd: reduceProd,
  ReduceSum: reduceSum,
  ReduceSumSquare: reduceSumSquare,
} satisfies Record<string, OperatorDefinition>;
