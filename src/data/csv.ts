/** Tables of numbers in CSV or TSV files: an index of lines in memory, never the rows. */
import { type CsvError, parse } from "csv-parse/sync";
import { LockstepError } from "../errors.ts";
import { type Document, loadDocuments, partOf } from "./document.ts";
import { findFiles } from "./find.ts";
import { keepSmall } from "./kept.ts";
import { indexLines, type LineIndex } from "./lines.ts";
import type { Field } from "./match.ts";
import { openRecords, type Records } from "./records.ts";
import type { Dataset, OpenRequest, SourceOptions } from "./source.ts";
import { MAX_KEPT_BYTES } from "./store.ts";

export interface CsvOptions extends SourceOptions {
  /** A comma unless told; "\t" for TSV. */
  readonly delimiter?: string;
  /** The columns' names, for files without a first line that names them. */
  readonly header?: readonly string[];
  /** Fields of several columns: `{ x: ["width", "height"], y: "price" }`. Each column is a field by its own name, too. */
  readonly columns?: Readonly<Record<string, string | readonly string[]>>;
  /** Words that stand for numbers, by column: the first is 0. */
  readonly categories?: Readonly<Record<string, readonly string[]>>;
}

export interface CsvSource extends CsvOptions {
  readonly kind: "csv";
  readonly globs: readonly string[];
}

/** Feeds a field for each column, and those of `columns`. A tenth of the rows is held out unless told. */
export function csv(globs: string | readonly string[], options: CsvOptions = {}): CsvSource {
  return { ...options, kind: "csv", globs: typeof globs === "string" ? [globs] : globs };
}

/**
 * Ratings as MovieLens' `u.data` holds them: the fields `user`, `item`, `rating` and `time`, between tabs, without a
 * header. For other files: `csv(…, { fields: { user: "userId", item: "movieId" } })`.
 */
export function ratings(globs: string | readonly string[], options: SourceOptions = {}): CsvSource {
  return csv(globs, { ...options, delimiter: "\t", header: ["user", "item", "rating", "time"] });
}

export async function openCsv(source: CsvSource, request: OpenRequest): Promise<Dataset> {
  const name = `csv(${source.globs.map((pattern) => `"${pattern}"`).join(", ")})`;
  const documents = await loadDocuments(
    await findFiles(source.globs, request.baseDir),
    MAX_KEPT_BYTES,
  );
  const names = source.header ?? (await readHeader(documents, source, name));
  const lines = await indexLines(documents, {
    header: source.header === undefined,
    quotes: true,
  });
  let records: Records;
  try {
    if (lines.count === 0) throw new LockstepError("DATA_EMPTY", `${name} has no rows.`);
    checkNames(names, name);
    const needed = request.inputs.map((input) => source.fields?.[input.name] ?? input.name);
    records = await keepSmall(csvRecords(lines, names, source, name), lines, needed);
  } catch (error) {
    await lines.close();
    throw error;
  }
  return openRecords(records, request, source, name);
}

/** Two columns of one name would leave open which is meant. */
function checkNames(names: readonly string[], source: string): void {
  const twice = names.find((column, index) => names.indexOf(column) !== index);
  if (twice === undefined) return;
  throw new LockstepError("DATA_FORMAT", `${source}: line 1 names two columns "${twice}".`, {
    hint: "Give each column a name of its own.",
    fields: { column: twice },
  });
}

/** The names of the columns, which must be the same in every file. */
async function readHeader(
  documents: readonly Document[],
  source: CsvSource,
  name: string,
): Promise<string[]> {
  let header: string[] | undefined;
  for (const document of documents) {
    const start = await partOf(document, 0, Math.min(document.byteLength, MAX_HEADER_BYTES));
    const text = Buffer.from(start)
      .toString("utf8")
      .replace(/^\ufeff/, "");
    const own = parseRows(text.split(/\r?\n/, 1)[0] ?? "", source)[0] ?? [];
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

const MAX_HEADER_BYTES = 1 << 20;

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
      const parsed = await readRows(lines, rows, source, names);
      for (const [field, target] of Object.entries(into)) {
        const columns = columnsOf.get(field) ?? [];
        const values = new Float64Array(
          target.buffer,
          target.byteOffset,
          rows.length * columns.length,
        );
        for (const [row, cells] of parsed.entries()) {
          for (const [at, column] of columns.entries()) {
            const value = numberOf(cells[column], categories[column]);
            if (value === undefined) {
              const cell = { column: names[column] ?? "", text: cells[column] };
              throw await badCell(lines, rows[row] as number, cell, categories[column]);
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
  const twice = words?.find((word, index) => words.indexOf(word) !== index);
  if (twice !== undefined) {
    throw new LockstepError("INVALID_OPTION", `csv: the category "${twice}" is given twice.`);
  }
  return words === undefined ? undefined : new Map(words.map((word, number) => [word, number]));
}

/** Undefined for what is no number: empty, a word, `NaN`, and what JavaScript alone takes for one (`0x10`). */
function numberOf(
  cell: string | undefined,
  category: ReadonlyMap<string, number> | undefined,
): number | undefined {
  if (cell === undefined) return undefined;
  if (category !== undefined) return category.get(cell);
  const value = cell === "" ? Number.NaN : Number(cell);
  if (!Number.isFinite(value)) return undefined;
  return cell.charCodeAt(0) === ZERO && /^0[a-df-z]/i.test(cell) ? undefined : value;
}

const ZERO = 48;

async function badCell(
  lines: LineIndex,
  row: number,
  { column, text }: { readonly column: string; readonly text: string | undefined },
  category: ReadonlyMap<string, number> | undefined,
): Promise<LockstepError> {
  const where = await lines.describe(row);
  if (category !== undefined && text !== undefined) {
    const words = [...category.keys()].slice(0, 20).map((word) => `"${word}"`);
    return new LockstepError(
      "DATA_FORMAT",
      `${where}: column "${column}" is "${text}", which is none of its categories.`,
      { hint: `They are ${words.join(", ")}${category.size > 20 ? ", …" : ""}.` },
    );
  }
  const what = text === undefined ? "is missing" : `is "${text}", which is no number`;
  return new LockstepError("DATA_FORMAT", `${where}: column "${column}" ${what}.`, {
    hint: "Words can stand for numbers: { categories: { COLUMN: [WORD, …] } }.",
  });
}

async function readRows(
  lines: LineIndex,
  rows: readonly number[],
  source: CsvSource,
  names: readonly string[],
): Promise<string[][]> {
  const texts = await Promise.all(rows.map((row) => lines.read(row)));
  const isWhole = (cells: readonly string[]) => cells.length === names.length;
  try {
    const parsed = parseRows(texts.join("\n"), source);
    if (parsed.length === rows.length && parsed.every(isWhole)) return parsed;
  } catch {
    // Which of the lines it was is found below.
  }
  const bad = (index: number, what: string, cause?: unknown) =>
    lines.describe(rows[index] as number).then((where) => {
      throw new LockstepError("DATA_FORMAT", `${where}: ${what}.`, {
        hint: "Cells that hold the delimiter or a quote stand in double quotes.",
        cause,
      });
    });
  return Promise.all(
    texts.map(async (text, index) => {
      let parsed: string[][];
      try {
        parsed = parseRows(text, source);
      } catch (error) {
        return bad(index, (error as CsvError).message, error);
      }
      const [cells = [], ...more] = parsed;
      if (more.length > 0) return bad(index, "not one row");
      if (isWhole(cells)) return cells;
      return bad(index, `${cells.length} cells, but there are ${names.length} columns`);
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
