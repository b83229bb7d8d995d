import type { OperatorDefinition } from "../../graph/index.ts";
import { averagePool, globalAveragePool } from "./average-pool.ts";
import { conv } from "./conv.ts";
import { convTranspose } from "./conv-transpose.ts";
import { globalMaxPool } from "./global-max-pool.ts";
import { lpPool } from "./lp-pool.ts";
import { maxPool } from "./max-pool.ts";
import { resize } from "./resize.ts";

export { resizedDims, resizeMaps } from "./resize-maps.ts";
export { placesOf, readWindow, WINDOW_ATTRIBUTES, type Window } from "./window.ts";

export const convolution = {
  AveragePool: averagePool,
  Conv: conv,
  ConvTranspose: convTranspose,
  GlobalAveragePool: globalAveragePool,
  GlobalMaxPool: globalMaxPool,
  LpPool: lpPool,
  MaxPool: maxPool,
  Resize: resize,
} satisfies Record<string, OperatorDefinition>;
