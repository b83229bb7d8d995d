import { greaterOrEqual } from "../../functional/index.ts";
import { extremumGradient } from "./extremum.ts";
import { variadic } from "./shared.ts";

/** The largest of the inputs. */
export const max = variadic("Max", (context, index) =>
  extremumGradient(context, index, greaterOrEqual),
);
