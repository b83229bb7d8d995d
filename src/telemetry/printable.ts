/**
 * Text from elsewhere on its way to a terminal: names in files, messages of peers, what a model writes. Control characters in it could move the
 * cursor, write over what stands there, or ask the terminal for something.
 */
import type { RunEvent } from "./events.ts";

const SHOWN: ReadonlyMap<string, string> = new Map([
  ["\n", "\n"],
  ["\t", "  "],
]);
/** Control and format characters (those that turn the direction of writing are among these), and separators of lines. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

/** Lines stay lines. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, (char) => SHOWN.get(char) ?? "·");
}

/** On one line. */
export function printableLine(text: string): string {
  return printable(text).replaceAll("\n", "·");
}

/** JSON with what cannot be printed as escapes: it is the same JSON. */
export function printableJson(json: string): string {
  return json.replace(UNPRINTABLE, (char) => (char === "\n" ? char : escaped(char)));
}

/** In JSON's words, one for each of its UTF-16 units. */
function escaped(char: string): string {
  return Array.from(
    { length: char.length },
    (_, at) => `\\u${char.charCodeAt(at).toString(16).padStart(4, "0")}`,
  ).join("");
}

/** All texts of an event; only what a model has written keeps its lines. */
export function printableEvent(event: RunEvent): RunEvent {
  return cleaned(event, "") as RunEvent;
}

function cleaned(value: unknown, key: string): unknown {
  if (typeof value === "string") return key === "sample" ? printable(value) : printableLine(value);
  if (Array.isArray(value)) return value.map((item) => cleaned(item, key));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => [printableLine(name), cleaned(inner, name)]),
  );
}
