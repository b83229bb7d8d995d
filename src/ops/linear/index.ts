import type { OperatorDefinition } from "../../graph/index.ts";
import { gemm } from "./gemm.ts";
import { matmul } from "./matmul.ts";

export const linear = {
  Gemm: gemm,
  MatMul: matmul,
} satisfies Record<string, OperatorDefinition>;
