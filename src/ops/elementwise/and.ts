import { predicate } from "./shared.ts";

/** Logic on bools. */
export const and = predicate("And", { takes: (dtype) => dtype === "bool", takesWhat: "bools" });
