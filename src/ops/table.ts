/** The table of all operators. The types require every answer of each definition. */
import type { OperatorDefinition, OperatorTable } from "../graph/index.ts";
import { collective } from "./collective/index.ts";
import { convolution } from "./convolution/index.ts";
import { elementwise } from "./elementwise/index.ts";
import { indexing } from "./indexing/index.ts";
import { layout } from "./layout/index.ts";
import { linear } from "./linear/index.ts";
import { normalization } from "./normalization/index.ts";
import { random } from "./random/index.ts";
import { recurrent } from "./recurrent/index.ts";
import { reduce } from "./reduce/index.ts";
import { sampling } from "./sampling/index.ts";

export const operators = {
  ...collective,
  ...convolution,
  ...elementwise,
  ...indexing,
  ...layout,
  ...linear,
  ...normalization,
  ...random,
  ...recurrent,
  ...reduce,
  ...sampling,
} satisfies Record<string, OperatorDefinition>;

/** The name of an operator that has a definition. */
export type OperatorName = keyof typeof operators;

const byName = new Map<string, OperatorDefinition>(Object.entries(operators));

export const operatorTable: OperatorTable = { find: (op) => byName.get(op) };
