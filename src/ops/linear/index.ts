import type { OperatorDefinition } from "../../graph/index.ts";
import { matmul } from "./matmul.ts";

export const linear = {
  MatMul: matmul,
} satisfies Record<string, OperatorDefinition>;
