import type { OperatorDefinition } from "../../graph/index.ts";
import { col2Im } from "./col-2-im.ts";
import { deformConv } from "./deform-conv.ts";
import { gridSample } from "./grid-sample.ts";

/** Operators that read at positions given by data, between elements or by windows. */
export const sampling = {
  Col2Im: col2Im,
  DeformConv: deformConv,
  GridSample: gridSample,
} satisfies Record<string, OperatorDefinition>;
