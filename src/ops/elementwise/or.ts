import { predicate } from "./shared.ts";

/** Logic on bools. */
export const or = predicate("Or", { takes: (dtype) => dtype === "bool", takesWhat: "bools" });
