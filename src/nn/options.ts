/** Checks of options that models share. */
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

/** Throws INVALID_OPTION unless all are in [0, 1). */
export function checkRates(model: string, rates: Readonly<Record<string, number>>): void {
  for (const [name, value] of Object.entries(rates)) {
    if (value >= 0 && value < 1) continue;
    throw new LockstepError("INVALID_OPTION", `${model}: ${name} is ${value}.`, {
      hint: "It must be at least 0 and less than 1.",
      fields: { option: name },
    });
  }
}

/** Throws INVALID_OPTION unless each value is one of those allowed. */
export function checkChoice<T extends string>(
  model: string,
  name: string,
  value: T,
  allowed: readonly T[],
): void {
  if (allowed.includes(value)) return;
  throw new LockstepError("INVALID_OPTION", `${model}: ${name} is "${String(value)}".`, {
    hint: `It must be one of: ${allowed.join(", ")}.`,
    fields: { option: name },
  });
}
