/**
 * Makes text from elsewhere safe to print on a terminal: names in files, messages of peers, text
 * that a model generates. Control characters in it could move the cursor, overwrite what is shown,
 * or send requests to the terminal.
 */
import type { RunEvent } from "./events.ts";

const SHOWN: ReadonlyMap<string, string> = new Map([
  ["\n", "\n"],
  ["\t", "  "],
]);
/**
 * Control and format characters (those that change the direction of writing are among them), and
 * line separators.
 */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

/** Makes text printable and keeps its line breaks. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, (char) => SHOWN.get(char) ?? "·");
}

/** Makes text printable on one line: what stands on the next one follows after a space. */
export function printableLine(text: string): string {
  return printable(text).replaceAll(/ *\n */g, " ");
}

/** Writes unprintable characters in JSON as escapes, which does not change its value. */
export function printableJson(json: string): string {
  return json.replace(UNPRINTABLE, (char) => (char === "\n" ? char : escaped(char)));
}

/** The JSON escapes of a character, one for each of its UTF-16 units. */
function escaped(char: string): string {
  return Array.from(
    { length: char.length },
    (_, at) => `\\u${char.charCodeAt(at).toString(16).padStart(4, "0")}`,
  ).join("");
}

/**
 * Makes all texts of an event printable; only text that a model has generated keeps its line
 * breaks.
 */
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
