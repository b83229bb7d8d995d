import { lessOrEqual } from "../../functional/index.ts";
import { extremumGradient } from "./extremum.ts";
import { variadic } from "./shared.ts";

/** The smallest of the inputs. */
export const min = variadic("Min", (context, index) =>
  extremumGradient(context, index, lessOrEqual),
);
