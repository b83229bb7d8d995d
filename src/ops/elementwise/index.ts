import type { OperatorDefinition } from "../../graph/index.ts";
import { add } from "./add.ts";
import { mul } from "./mul.ts";

export const elementwise = {
  Add: add,
  Mul: mul,
} satisfies Record<string, OperatorDefinition>;
