import type { OperatorDefinition } from "../../graph/index.ts";
import { conv } from "./conv.ts";
import { convTranspose } from "./conv-transpose.ts";
import { maxPool } from "./max-pool.ts";

export const convolution = {
  Conv: conv,
  ConvTranspose: convTranspose,
  MaxPool: maxPool,
} satisfies Record<string, OperatorDefinition>;
