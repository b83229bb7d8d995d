import type { OperatorDefinition } from "../../graph/index.ts";
import { det } from "./det.ts";
import { dft } from "./dft.ts";
import { einsum } from "./einsum.ts";
import { fusedMatmul } from "./fused-matmul.ts";
import { gemm } from "./gemm.ts";
import { inverse } from "./inverse.ts";
import { matmul } from "./matmul.ts";

export { type Labels, parseEquation, type Terms } from "./equation.ts";

export const linear = {
  DFT: dft,
  Det: det,
  Einsum: einsum,
  Gemm: gemm,
  MatMul: matmul,
  "com.microsoft::FusedMatMul": fusedMatmul,
  "com.microsoft::Inverse": inverse,
} satisfies Record<string, OperatorDefinition>;
