import { predicate } from "./shared.ts";

/** Whether a = b, as bool. */
export const equal = predicate("Equal", { form: { kind: "equality" } });
