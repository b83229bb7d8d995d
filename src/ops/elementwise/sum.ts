import { variadic } from "./shared.ts";

/** The sum of the inputs. */
export const sum = variadic("Sum", (context) => context.gradient(0), { linear: "together" });
