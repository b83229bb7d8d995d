/**
 * Checks the options that a user gives to a public function. Run files are not type-checked when
 * they run, so a misspelt option would be ignored silently, and its default would be used.
 */
import { z } from "zod";
import { LockstepError } from "./errors.ts";

/** A schema for each option. The type names every option, so none can be forgotten here. */
export type OptionKinds<T> = { readonly [Name in keyof Required<T>]: z.ZodType };

/** A whole number above 0. */
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
/** The channels, height and width of an image. */
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
/** An option that is an object of several named parts. */
export const group = (parts: Readonly<Record<string, z.ZodType>>): z.ZodType =>
  z.strictObject(parts);
/** An object whose values are all of one kind. */
export const lists = (kind: z.ZodType): z.ZodType => z.record(z.string(), kind);
/** An option that is checked where it is used. */
export const anything = z.unknown();

export function choice(...allowed: readonly string[]): z.ZodType {
  return z.enum(allowed as [string, ...string[]], {
    error: `It must be one of: ${allowed.join(", ")}.`,
  });
}

/** @throws INVALID_OPTION for an option that does not exist, is missing, or has a wrong value */
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
  const checked = schemaOf(kinds).safeParse(given);
  if (checked.success) return;
  const { issues } = checked.error;
  // A misspelt name is reported first, because it best explains why another option is missing.
  const issue = issues.find(({ code }) => code === "unrecognized_keys") ?? issues[0];
  if (issue === undefined) return;
  if (issue.code === "unrecognized_keys") {
    const [first = ""] = issue.keys;
    const names = issue.keys.map((name) => `"${name}"`).join(", ");
    const inside = issue.path.length === 0 ? "" : ` in "${issue.path.join(".")}"`;
    const known = namesAt(kinds, issue.path);
    const near = nearest(first, known);
    throw new LockstepError("INVALID_OPTION", `${where}: there is no option ${names}${inside}.`, {
      hint: `${near === undefined ? "" : `Did you mean "${near}"? `}The options are ${known.join(", ")}.`,
      fields: { option: first, ...(near === undefined ? {} : { near }) },
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
    hint:
      value === undefined && issue.code === "invalid_type" ? needed(issue.message) : issue.message,
    fields: { option: String(option) },
  });
}

const schemas = new WeakMap<object, z.ZodType>();

/**
 * The schema of a table of options. It is made once, because layers and losses are checked at every
 * call.
 */
function schemaOf(kinds: Readonly<Record<string, z.ZodType>>): z.ZodType {
  const known = schemas.get(kinds) ?? z.strictObject(kinds);
  schemas.set(kinds, known);
  return known;
}

/** The option names that exist at `path`, inside an option of several parts. */
function namesAt(
  kinds: Readonly<Record<string, z.ZodType>>,
  path: readonly PropertyKey[],
): readonly string[] {
  const [first, ...rest] = path;
  if (first === undefined) return Object.keys(kinds);
  let kind = kinds[String(first)];
  while (kind instanceof z.ZodOptional) kind = kind.unwrap() as z.ZodType;
  return kind instanceof z.ZodObject ? namesAt(kind.shape, rest) : [];
}

/** What to say of a value that is none of these texts: `must be "a" or "b", and is "c"`. */
export function notAmong(given: unknown, allowed: readonly string[]): string {
  const all = allowed.map((text) => `"${text}"`).join(" or ");
  const near = typeof given === "string" ? nearest(given, allowed) : undefined;
  const meant = near === undefined ? "" : ` (did you mean "${near}"?)`;
  return `must be ${all}, and is ${shown(given)}${meant}`;
}

/**
 * The name that a misspelt one most likely stands for: one that differs in a few letters or in the
 * way words are joined, or one of which the other is the beginning.
 */
function nearest(given: string, names: readonly string[]): string | undefined {
  const plain = (name: string) => name.toLowerCase().replace(/[^a-z0-9]/g, "");
  const wanted = plain(given);
  const rated = names.map((name) => {
    const own = plain(name);
    const isCut = wanted.length >= 3 && (own.startsWith(wanted) || wanted.startsWith(own));
    const length = Math.max(own.length, wanted.length);
    return { name, share: isCut ? 0.2 : editDistance(wanted, own) / Math.max(1, length) };
  });
  const [best] = rated.sort((a, b) => a.share - b.share);
  return best !== undefined && best.share <= 0.34 ? best.name : undefined;
}

/**
 * The number of letters inserted, omitted, replaced or swapped with their neighbour (Damerau 1964,
 * without overlap).
 */
function editDistance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  const at = (i: number, j: number) => rows[i]?.[j] ?? Number.POSITIVE_INFINITY;
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    rows.push(row);
    for (let j = 1; j <= b.length; j++) {
      const isSwapped = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      row.push(
        Math.min(
          at(i - 1, j) + 1,
          at(i, j - 1) + 1,
          at(i - 1, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1),
          isSwapped ? at(i - 2, j - 2) + 1 : Number.POSITIVE_INFINITY,
        ),
      );
    }
  }
  return at(a.length, b.length);
}

function number(error: string, isRight: (value: number) => boolean): z.ZodType {
  return z.number({ error }).refine(isRight, { error });
}

/**
 * The sentence that says what an option must be. If any value is allowed, zod's own message is
 * replaced.
 */
function needed(message: string): string {
  return message.startsWith("Invalid input") ? "It must be given." : message;
}

function shown(value: unknown): string {
  if (typeof value === "string") return `"${value}"`;
  if (typeof value === "number" || value === undefined || value === null) return String(value);
  return (JSON.stringify(value) ?? typeof value).slice(0, 60);
}
