import type { OperatorDefinition } from "../../graph/index.ts";
import { einsum } from "./einsum.ts";
import { fusedMatmul } from "./fused-matmul.ts";
import { gemm } from "./gemm.ts";
import { matmul } from "./matmul.ts";

export { type Labels, parseEquation, type Terms } from "./equation.ts";

export const linear = {
  Einsum: einsum,
  Gemm: gemm,
  MatMul: matmul,
  "com.microsoft::FusedMatMul": fusedMatmul,
} satisfies Record<string, OperatorDefinition>;
