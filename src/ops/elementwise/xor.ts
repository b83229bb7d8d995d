import { predicate } from "./shared.ts";

/** Logic on bools. */
export const xor = predicate("Xor", { takes: (dtype) => dtype === "bool", takesWhat: "bools" });
