/** Tables of numbers in CSV or TSV files: an index of lines in memory, never the rows. */
import { type CsvError, parse } from "csv-parse/sync";
import { LockstepError } from "../errors.ts";
import { checkOptions, lists, type OptionKinds, word, words } from "../options.ts";
import { type Document, loadDocuments, partOf } from "./document.ts";
import { findFiles } from "./find.ts";
import { indexLines, type LineIndex } from "./lines.ts";
import type { Field } from "./match.ts";
import { globsOf, SOURCE_OPTIONS } from "./options.ts";
import { openRecords, type Records } from "./records.ts";
import type { Dataset, OpenRequest, SourceOptions } from "./source.ts";
import { MAX_KEPT_BYTES } from "./store.ts";

export interface CsvOptions extends SourceOptions {
  /** The character between fields; "\t" for TSV. Default: a comma. */
  readonly delimiter?: string;
  /** The names of the columns, for files without a first line that names them. */
  readonly header?: readonly string[];
  /**
   * Fields made of several columns: `{ x: ["width", "height"], y: "price" }`. Each column is also a
   * field by its own name.
   */
  readonly columns?: Readonly<Record<string, string | readonly string[]>>;
  /** Words that stand for numbers, by column: the first word is 0. */
  readonly categories?: Readonly<Record<string, readonly string[]>>;
}

const CSV_OPTIONS: OptionKinds<CsvOptions> = {
  ...SOURCE_OPTIONS,
  delimiter: word.optional(),
  header: words.optional(),
  columns: lists(word.or(words)).optional(),
  categories: lists(words).optional(),
};

export interface CsvSource extends CsvOptions {
  readonly kind: "csv";
  readonly globs: readonly string[];
}

/**
 * Provides a field for each column, and the fields of `columns`. Default of `heldOut`: a tenth of
 * the rows.
 */
export function csv(globs: string | readonly string[], options: CsvOptions = {}): CsvSource {
  checkOptions("csv()", options, CSV_OPTIONS);
  return { ...options, kind: "csv", globs: globsOf("csv()", globs) };
}

/**
 * Ratings in the form of MovieLens' `u.data`: the fields `user`, `item`, `rating` and `time`,
 * separated by tabs, without a header. For other files: `csv(…, { fields: { user: "userId", item:
 * "movieId" } })`.
 */
export function ratings(globs: string | readonly string[], options: SourceOptions = {}): CsvSource {
  return csv(globs, { ...options, delimiter: "\t", header: ["user", "item", "rating", "time"] });
}

export async function openCsv(source: CsvSource, request: OpenRequest): Promise<Dataset> {
  const name = `csv(${source.globs.map((pattern) => `"${pattern}"`).join(", ")})`;
  const documents = await loadDocuments(await findFiles(source.globs, request), MAX_KEPT_BYTES);
  const names = source.header ?? (await readHeader(documents, source, name));
  const lines = await indexLines(documents, {
    header: source.header === undefined,
    quotes: true,
  });
  let records: Records;
  try {
    if (lines.count === 0) throw new LockstepError("DATA_EMPTY", `${name} has no rows.`);
    records = csvRecords(lines, names, source, name);
  } catch (error) {
    await lines.close();
    throw error;
  }
  return openRecords(records, request, source, name);
}

/** The names of the columns, which must be the same in every file. */
async function readHeader(
  documents: readonly Document[],
  source: CsvSource,
  name: string,
): Promise<readonly string[]> {
  let header: readonly string[] | undefined;
  for (const document of documents) {
    const own = parseHeader(await firstRecord(document), document.name, source);
    header ??= own;
    if (own.join("\n") !== header.join("\n")) {
      throw new LockstepError(
        "DATA_FORMAT",
        `${name}: "${document.name}" has the columns ${own.join(", ")}, but "${documents[0]?.name}" has ${header.join(", ")}.`,
        {
          hint: "Files of one source have the same columns in the same order.",
        },
      );
    }
  }
  return header ?? [];
}

/** The first record of a file: up to the first line break that is not inside double quotes. */
async function firstRecord(document: Document): Promise<string> {
  for (let size = FIRST_READ_BYTES; ; size *= 4) {
    const length = Math.min(document.byteLength, size);
    const bytes = await partOf(document, 0, length);
    let isQuoted = false;
    let end = bytes.findIndex((byte) => {
      if (byte === QUOTE) isQuoted = !isQuoted;
      return byte === NEWLINE && !isQuoted;
    });
    if (end < 0 && length < document.byteLength && length < MAX_HEADER_BYTES) continue;
    // A quote that is never closed is reported by the parser, with the first line.
    if (end < 0 && isQuoted) end = bytes.indexOf(NEWLINE);
    const record = Buffer.from(end < 0 ? bytes : bytes.subarray(0, end));
    return record
      .toString("utf8")
      .replace(/^\ufeff/, "")
      .replace(/\r$/, "");
  }
}

/**
 * Throws DATA_FORMAT for names that occur twice, and for files whose lines cannot be told apart.
 */
function parseHeader(text: string, file: string, source: CsvSource): readonly string[] {
  const fail = (what: string, hint: string, cause?: unknown): never => {
    throw new LockstepError("DATA_FORMAT", `"${file}", line 1: ${what}.`, {
      hint,
      fields: { file },
      cause,
    });
  };
  if (text.replace(/"[^"]*"/g, "").includes("\r")) {
    fail("lines end with a carriage return alone", "Save the file with ordinary ends of lines.");
  }
  let names: readonly string[] = [];
  try {
    names = parseRows(text, source)[0] ?? [];
  } catch (error) {
    const hint = 'A double quote inside a quoted name is written twice: "".';
    fail((error as CsvError).message, hint, error);
  }
  if (names.length === 0) {
    const hint = "The first line names the columns; for files without one: { header: [NAME, …] }.";
    fail("it is blank", hint);
  }
  const twice = names.find((column, at) => names.indexOf(column) !== at);
  if (twice !== undefined) fail(`two columns are named "${twice}"`, "Give each a name of its own.");
  return names;
}

const NEWLINE = 10;
const QUOTE = 34;
const MAX_HEADER_BYTES = 1 << 26;
const FIRST_READ_BYTES = 1 << 16;

function csvRecords(
  lines: LineIndex,
  names: readonly string[],
  source: CsvSource,
  name: string,
): Records {
  const columnsOf = new Map<string, number[]>(names.map((column, index) => [column, [index]]));
  for (const [field, columns] of Object.entries(source.columns ?? {})) {
    const list = typeof columns === "string" ? [columns] : columns;
    columnsOf.set(
      field,
      list.map((column) => columnIndex(column, names, name)),
    );
  }
  const fields = Object.fromEntries(
    Array.from(columnsOf, ([field, columns]): [string, Field] => {
      const isList = Array.isArray(source.columns?.[field]);
      return [field, { type: "number", shape: isList ? [columns.length] : [] }];
    }),
  );
  const categories = names.map((column) => categoryNumbers(source.categories?.[column]));
  for (const column of Object.keys(source.categories ?? {})) columnIndex(column, names, name);
  return {
    rows: lines.count,
    fields,
    read: async (rows, into) => {
      const parsed = await readRows(lines, rows, source);
      for (const [field, target] of Object.entries(into)) {
        const columns = columnsOf.get(field) ?? [];
        const values = new Float64Array(
          target.buffer,
          target.byteOffset,
          rows.length * columns.length,
        );
        for (const [row, cells] of parsed.entries()) {
          if (cells.length !== names.length) {
            throw await badWidth(lines, rows[row] as number, cells.length, names.length);
          }
          for (const [at, column] of columns.entries()) {
            const value = numberOf(cells[column], categories[column]);
            if (value === undefined) {
              const where = await lines.describe(rows[row] as number);
              const words = source.categories?.[names[column] ?? ""];
              throw badCell(where, names[column] ?? "", cells[column], words);
            }
            values[row * columns.length + at] = value;
          }
        }
      }
    },
    describe: (row) => lines.describe(row),
    close: () => lines.close(),
  };
}

function columnIndex(column: string, names: readonly string[], name: string): number {
  const index = names.indexOf(column);
  if (index !== -1) return index;
  throw new LockstepError("DATA_FORMAT", `${name} has no column "${column}".`, {
    hint: `Its columns are ${names.map((each) => `"${each}"`).join(", ")}.`,
  });
}

function categoryNumbers(
  words: readonly string[] | undefined,
): ReadonlyMap<string, number> | undefined {
  return words === undefined ? undefined : new Map(words.map((word, number) => [word, number]));
}

const DECIMAL = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/** Undefined for text that is not a decimal number: empty, a word, `NaN`, `0x10`. */
function numberOf(
  cell: string | undefined,
  category: ReadonlyMap<string, number> | undefined,
): number | undefined {
  if (cell === undefined) return undefined;
  if (category !== undefined) return category.get(cell);
  return DECIMAL.test(cell) ? Number(cell) : undefined;
}

async function badWidth(
  lines: LineIndex,
  row: number,
  cells: number,
  names: number,
): Promise<LockstepError> {
  const where = await lines.describe(row);
  return new LockstepError("DATA_FORMAT", `${where}: ${cells} cells, but ${names} columns.`, {
    hint: 'A number is written 7000, not 7,000; a text that contains the delimiter is put in quotes: "a, b".',
  });
}

function badCell(
  where: string,
  column: string,
  cell = "",
  words: readonly string[] | undefined,
): LockstepError {
  const what = words === undefined ? "no number" : "not one of its categories";
  const hint =
    words === undefined
      ? "A number is written 1234.5. Words can stand for numbers: { categories: { COLUMN: [WORD, …] } }."
      : `Its categories are ${words.join(", ")}.`;
  return new LockstepError(
    "DATA_FORMAT",
    `${where}: column "${column}" is "${cell}", which is ${what}.`,
    { hint },
  );
}

async function readRows(
  lines: LineIndex,
  rows: readonly number[],
  source: CsvSource,
): Promise<string[][]> {
  const texts = await Promise.all(rows.map((row) => lines.read(row)));
  try {
    const parsed = parseRows(texts.join("\n"), source);
    if (parsed.length === rows.length) return parsed;
  } catch {
    // The line that failed is found below.
  }
  return Promise.all(
    texts.map(async (text, index) => {
      try {
        const [cells = [], ...more] = parseRows(text, source);
        if (more.length === 0) return cells;
      } catch (error) {
        const where = await lines.describe(rows[index] as number);
        throw new LockstepError("DATA_FORMAT", `${where}: ${(error as CsvError).message}.`, {
          cause: error,
        });
      }
      throw new LockstepError(
        "DATA_FORMAT",
        `${await lines.describe(rows[index] as number)}: not one row.`,
      );
    }),
  );
}

function parseRows(text: string, source: CsvSource): string[][] {
  return parse(text, {
    delimiter: source.delimiter ?? ",",
    relax_column_count: true,
    record_delimiter: ["\n", "\r\n"],
    trim: true,
  });
}
