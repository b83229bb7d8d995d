/**
 * Converts options to JSON and back. A value that JSON cannot express becomes an object with one
 * field that says what it is.
 */
import { LockstepError } from "../errors.ts";

export type Plain =
  | null
  | boolean
  | number
  | string
  | readonly Plain[]
  | { readonly [name: string]: Plain };

const REGEXP = "regular expression";
const NUMBER = "number";
/** The deepest nesting of lists and objects. */
const MAX_DEPTH = 16;

/**
 * Converts a value to JSON. `where` names the value in errors: `optimizer.options`. Throws NOT_DATA
 * for a value that cannot be written as data, such as a function or an instance of a class.
 */
export function toPlain(value: unknown, where: string): Plain {
  switch (typeof value) {
    case "boolean":
    case "string":
      return value;
    case "number":
      return Number.isFinite(value) && !Object.is(value, -0)
        ? value
        : { [NUMBER]: Object.is(value, -0) ? "-0" : String(value) };
    case "undefined":
      return null;
    case "object":
      if (value !== null) return objectToPlain(value, where);
      break;
    default:
      break;
  }
  throw notData(value, where);
}

function objectToPlain(value: object, where: string): Plain {
  if (value instanceof RegExp) return { [REGEXP]: [value.source, value.flags] };
  if (Array.isArray(value)) return value.map((item, at) => toPlain(item, `${where}[${at}]`));
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== null && Object.getPrototypeOf(prototype) !== null) {
    throw notData(value, where);
  }
  const entries = Object.entries(value).filter(([, inner]) => inner !== undefined);
  return Object.fromEntries(
    entries.map(([name, inner]) => [name, toPlain(inner, `${where}.${name}`)]),
  );
}

function notData(value: unknown, where: string): LockstepError {
  const what =
    value === null
      ? "null"
      : typeof value === "object"
        ? "an object of a class"
        : `a ${typeof value}`;
  return new LockstepError(
    "NOT_DATA",
    `${where} is ${what}, which cannot be written into a job: this run can be trained by one process on this machine only.`,
    {
      hint: "Train it without --workers and --hosts, or state it as plain values.",
      fields: { where },
    },
  );
}

/** Returns the value that `toPlain` was given. Throws JOB. */
export function fromPlain(plain: Plain, where: string, depth = 0): unknown {
  if (typeof plain !== "object") return plain;
  if (plain === null) return undefined;
  if (depth > MAX_DEPTH) throw faulty(where, "is nested too deeply");
  if (isList(plain)) return plain.map((item) => fromPlain(item, where, depth + 1));
  const { [REGEXP]: expression, [NUMBER]: number } = plain;
  if (expression !== undefined) return expressionOf(expression, where);
  if (number !== undefined) {
    if (/^(?:-0|NaN|-?Infinity)$/.test(String(number))) return Number(number);
    throw faulty(where, "has a number that is not valid");
  }
  return Object.fromEntries(
    Object.entries(plain).map(([name, inner]) => [
      name,
      fromPlain(inner, `${where}.${name}`, depth + 1),
    ]),
  );
}

function isList(plain: Plain): plain is readonly Plain[] {
  return Array.isArray(plain);
}

function expressionOf(parts: Plain, where: string): RegExp {
  const [source, flags, ...others] = isList(parts) ? parts : [];
  if (typeof source !== "string" || typeof flags !== "string" || others.length > 0) {
    throw faulty(where, "has a regular expression that is not valid");
  }
  try {
    return new RegExp(source, flags);
  } catch {
    throw faulty(where, `has a regular expression that is not valid: /${source}/${flags}`);
  }
}

function faulty(where: string, what: string): LockstepError {
  return new LockstepError("JOB", `job.json: ${where} ${what}.`);
}
