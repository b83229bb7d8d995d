import { mul } from "../../functional/index.ts";
import { variadic } from "./shared.ts";

/** The mean of the inputs, element by element. */
export const mean = variadic(
  "Mean",
  (context) => mul(context.gradient(0), 1 / context.inputs.length),
  { linear: "together" },
);
