/**
 * Checks of the options that a user gives to a public function: run files are not type-checked when they run, so a misspelt option
 * would be left out in silence, and its default would hold.
 */
import { z } from "zod";
import { LockstepError } from "./errors.ts";

/** What each option must be; total, so that an option cannot be forgotten here. */
export type OptionKinds<T> = { readonly [Name in keyof Required<T>]: z.ZodType };

/** Whole numbers above 0. */
export const count = z.int({ error: "It must be a whole number above 0." }).min(1, {
  error: "It must be a whole number above 0.",
});
export const wholeNumber = z.int({ error: "It must be a whole number." }).min(0, {
  error: "It must be a whole number of at least 0.",
});
export const counts = z.array(count, { error: "It must be a list of whole numbers above 0." });
export const countOrShape = z.union([count, counts.min(1)], {
  error: "It must be a whole number above 0, or a list of them.",
});
/** Channels, height and width. */
export const imageSize = z.tuple([count, count, count], {
  error: "It must be three whole numbers above 0: channels, height and width.",
});
export const rate = number("It must be at least 0 and less than 1.", (value) => {
  return value >= 0 && value < 1;
});
export const share = number("It must be from 0 to 0.5.", (value) => value >= 0 && value <= 0.5);
export const finite = number("It must be a number.", () => true);
export const positive = number("It must be a number above 0.", (value) => value > 0);
export const notNegative = number("It must be a number of at least 0.", (value) => value >= 0);
export const pair = z.tuple([finite, finite], { error: "It must be two numbers." });
export const triple = z.tuple([finite, finite, finite], { error: "It must be three numbers." });
export const flag = z.boolean({ error: "It must be true or false." });
export const word = z
  .string({ error: "It must be a text." })
  .min(1, { error: "It must not be empty." });
export const words = z
  .array(z.string(), { error: "It must be a list of texts." })
  .refine((list) => new Set(list).size === list.length, { error: "A text is there twice." });
export const callable = z.custom((value) => typeof value === "function", "It must be a function.");
/** An option of several parts. */
export const group = (parts: Readonly<Record<string, z.ZodType>>): z.ZodType =>
  z.strictObject(parts);
/** An object of values of one kind. */
export const lists = (kind: z.ZodType): z.ZodType => z.record(z.string(), kind);
/** Checked where it is used. */
export const anything = z.unknown();

export function choice(...allowed: readonly string[]): z.ZodType {
  return z.enum(allowed as [string, ...string[]], {
    error: `It must be one of: ${allowed.join(", ")}.`,
  });
}

/** @throws INVALID_OPTION for an option that is not there, is missing, or is not what it must be */
export function checkOptions<T extends object>(
  where: string,
  given: T | undefined,
  kinds: OptionKinds<T>,
): void {
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw new LockstepError("INVALID_OPTION", `${where} needs options, got ${shown(given)}.`, {
      hint: `Its options are ${Object.keys(kinds).join(", ")}.`,
    });
  }
  const checked = z.strictObject(kinds).safeParse(given);
  if (checked.success) return;
  const [issue] = checked.error.issues;
  if (issue === undefined) return;
  if (issue.code === "unrecognized_keys") {
    const names = issue.keys.map((name) => `"${name}"`).join(", ");
    throw new LockstepError("INVALID_OPTION", `${where}: there is no option ${names}.`, {
      hint: `Its options are ${Object.keys(kinds).join(", ")}.`,
      fields: { option: issue.keys[0] ?? "" },
    });
  }
  const [option = ""] = issue.path;
  const path = issue.path.reduce<string>(
    (text, part) => (typeof part === "number" ? `${text}[${part}]` : `${text}.${String(part)}`),
    "",
  );
  let value: unknown = given;
  for (const part of issue.path) value = (value as Record<PropertyKey, unknown>)[part];
  throw new LockstepError("INVALID_OPTION", `${where}: ${path.slice(1)} is ${shown(value)}.`, {
    hint: issue.message,
    fields: { option: String(option) },
  });
}

function number(error: string, isRight: (value: number) => boolean): z.ZodType {
  return z.number({ error }).refine(isRight, { error });
}

function shown(value: unknown): string {
  if (typeof value === "string") return `"${value}"`;
  if (typeof value === "number" || value === undefined || value === null) return String(value);
  return (JSON.stringify(value) ?? typeof value).slice(0, 60);
}
