import { realFromHalf, type StftOptions, stft } from "../../src/functional/index.ts";
import type { Value } from "../../src/graph/index.ts";
import { checkFamily } from "./support.ts";

checkFamily("spectral", {
  realFromHalf: ([x], { axis, length }) =>
    realFromHalf(x as Value, axis as number, length as number),
  stft: ([x, window], attributes) => stft(x as Value, window, attributes as unknown as StftOptions),
});
