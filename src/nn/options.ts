/** Checks of options that layers share. */
import { LockstepError } from "../errors.ts";

/** Throws INVALID_OPTION unless all are whole numbers above 0. */
export function checkCounts(model: string, counts: Readonly<Record<string, number>>): void {
  for (const [name, value] of Object.entries(counts)) {
    if (Number.isInteger(value) && value > 0) continue;
    throw new LockstepError("INVALID_OPTION", `${model}: ${name} is ${value}.`, {
      hint: "It must be a whole number above 0.",
      fields: { option: name },
    });
  }
}
