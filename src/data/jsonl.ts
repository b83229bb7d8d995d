/**
 * Files with one JSON object on each line: a text in each for language models, or numbers for other
 * models.
 */
import { LockstepError } from "../errors.ts";
import { checkOptions, word } from "../options.ts";
import { elementCount, formatShape, type Shape, sameShape } from "../tensor/index.ts";
import { type Document, loadDocuments } from "./document.ts";
import { findFiles } from "./find.ts";
import { indexLines, type LineIndex } from "./lines.ts";
import type { Field } from "./match.ts";
import { globsOf } from "./options.ts";
import { openRecords, type Records } from "./records.ts";
import type { Dataset, OpenRequest } from "./source.ts";
import { MAX_KEPT_BYTES } from "./store.ts";
import { openDocuments, TEXT_OPTIONS, type TextOptions } from "./text.ts";

export interface JsonlOptions extends TextOptions {
  /** The field that holds a text. Default: fields of numbers feed inputs of their names. */
  readonly text?: string;
}

export interface JsonlSource extends JsonlOptions {
  readonly kind: "jsonl";
  readonly globs: readonly string[];
}

/**
 * With `text`, each object's text is a document, and everything is as with `text()`. Without it,
 * each object is a sample; its numbers, booleans and nested lists of them are fields, of the shape
 * that they have in the first object.
 */
export function jsonl(globs: string | readonly string[], options: JsonlOptions = {}): JsonlSource {
  checkOptions<JsonlOptions>("jsonl()", options, { ...TEXT_OPTIONS, text: word.optional() });
  return { ...options, kind: "jsonl", globs: globsOf("jsonl()", globs) };
}

export async function openJsonl(source: JsonlSource, request: OpenRequest): Promise<Dataset> {
  const name = `jsonl(${source.globs.map((pattern) => `"${pattern}"`).join(", ")})`;
  const files = await loadDocuments(await findFiles(source.globs, request), MAX_KEPT_BYTES);
  const lines = await indexLines(files, { header: false, quotes: false });
  try {
    if (lines.count === 0) throw new LockstepError("DATA_EMPTY", `${name} has no lines.`);
    if (source.text !== undefined) {
      const documents = await textsOf(lines, source.text);
      await lines.close();
      return await openDocuments(documents, source, request, name);
    }
    return await openRecords(await jsonRecords(lines), request, source, name);
  } catch (error) {
    await lines.close();
    throw error;
  }
}

/** The largest size of all texts together, which are kept in memory. */
const MAX_TEXT_BYTES = 2 ** 31;

async function textsOf(lines: LineIndex, field: string): Promise<Document[]> {
  const documents: Document[] = [];
  let total = 0;
  for (let line = 0; line < lines.count; line++) {
    const value = (await readObject(lines, line, [field]))[field];
    if (typeof value !== "string") {
      throw await badLine(lines, line, `field "${field}" is ${typeName(value)}, not a text`);
    }
    if (value === "") continue;
    const content = Buffer.from(value, "utf8");
    total += content.length;
    if (total > MAX_TEXT_BYTES) {
      throw new LockstepError(
        "INVALID_OPTION",
        "These files hold more than 2 GiB of text, which JSON Lines cannot feed.",
        {
          hint: "Write the texts to plain files, which are read by ranges: text(…).",
        },
      );
    }
    const name = `#${line}`;
    documents.push({ name, path: undefined, offset: 0, byteLength: content.length, content });
  }
  return documents;
}

async function jsonRecords(lines: LineIndex): Promise<Records> {
  const first = await readObject(lines, 0, []);
  const fields: Record<string, Field> = {};
  for (const [name, value] of Object.entries(first)) {
    const shape = shapeOf(value);
    if (shape !== undefined) fields[name] = { type: "number", shape };
  }
  return {
    rows: lines.count,
    fields,
    read: async (rows, into) => {
      const objects = await Promise.all(
        rows.map((row) => readObject(lines, row, Object.keys(into))),
      );
      for (const [name, target] of Object.entries(into)) {
        const { shape } = fields[name] as Field;
        const size = elementCount(shape);
        const values = new Float64Array(target.buffer, target.byteOffset, rows.length * size);
        for (const [index, object] of objects.entries()) {
          const own = shapeOf(object[name]);
          if (own === undefined || !sameShape(own, shape)) {
            const got =
              own === undefined ? unfitName(object[name]) : `of shape ${formatShape(own)}`;
            throw await badLine(
              lines,
              rows[index] as number,
              `field "${name}" is ${got}; the first line's is of shape ${formatShape(shape)}`,
            );
          }
          values.set(numbersIn(object[name], shape.length), index * size);
        }
      }
    },
    describe: (row) => lines.describe(row),
    close: () => lines.close(),
  };
}

/**
 * The shape of a number (a scalar) or of regular nested lists of numbers; undefined for anything
 * else.
 */
function shapeOf(value: unknown): Shape | undefined {
  if (typeof value === "number" || typeof value === "boolean") return [];
  if (!Array.isArray(value)) return undefined;
  const shapes = value.map(shapeOf);
  const [first] = shapes;
  if (first === undefined) return value.length === 0 ? [0] : undefined;
  const even = shapes.every((shape) => shape !== undefined && sameShape(shape, first));
  return even ? [value.length, ...first] : undefined;
}

function numbersIn(value: unknown, depth: number): number[] {
  return depth === 0 ? [Number(value)] : (value as unknown[]).flat(depth - 1).map(Number);
}

/** @param names the fields that are needed; each may occur in the object only once */
async function readObject(
  lines: LineIndex,
  line: number,
  names: readonly string[],
): Promise<Record<string, unknown>> {
  const text = await lines.read(line);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw await badLine(lines, line, `not JSON (${error.message})`, ONE_OBJECT);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw await badLine(lines, line, `${typeName(value)}, not an object`, ONE_OBJECT);
  }
  const twice = names.find((name) => isTwice(text, name));
  if (twice === undefined) return value as Record<string, unknown>;
  throw await badLine(lines, line, `the object has two fields "${twice}"`);
}

const ONE_OBJECT =
  "Each line of a JSON Lines file is one object: { … }; a file that is one list is not.";

/**
 * Whether the object that is written as `text` has this key twice: JSON.parse would take the last.
 */
function isTwice(text: string, name: string): boolean {
  const key = JSON.stringify(name);
  const first = text.indexOf(key);
  const isOnce = first === -1 || text.indexOf(key, first + 1) === -1;
  // A key may be written with escapes: "\u0078" is "x".
  if (isOnce && !text.includes("\\")) return false;
  let depth = 0;
  let found = 0;
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"\s*:?|[[\]{}]/g)) {
    if (token === "{" || token === "[") depth++;
    else if (token === "}" || token === "]") depth--;
    else if (depth === 1 && token.endsWith(":") && JSON.parse(token.slice(0, -1)) === name) found++;
  }
  return found > 1;
}

function unfitName(value: unknown): string {
  return Array.isArray(value) ? "a list that is not even, or not of numbers" : typeName(value);
}

function typeName(value: unknown): string {
  if (value === undefined) return "missing";
  if (value === null) return "null";
  return Array.isArray(value) ? "a list" : `a ${typeof value}`;
}

async function badLine(
  lines: LineIndex,
  line: number,
  what: string,
  hint?: string,
): Promise<LockstepError> {
  const options = hint === undefined ? {} : { hint };
  return new LockstepError("DATA_FORMAT", `${await lines.describe(line)}: ${what}.`, options);
}
