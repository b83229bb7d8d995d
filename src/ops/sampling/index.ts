import type { OperatorDefinition } from "../../graph/index.ts";
import { gridSample } from "./grid-sample.ts";

/** Operators that read between elements. */
export const sampling = {
  GridSample: gridSample,
} satisfies Record<string, OperatorDefinition>;
