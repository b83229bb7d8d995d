/**
 * An index of the lines of text files. It takes twelve bytes of memory for each line, whatever its
 * length, and reads any line at once.
 */
import { LockstepError } from "../errors.ts";
import { type Document, partOf } from "./document.ts";
import { type ByteStore, byteStore, piecesOf } from "./store.ts";

export interface LineIndex {
  /** The number of lines that are not blank. */
  readonly count: number;
  /** Reads a line without its line break. */
  read(line: number): Promise<string>;
  /** Names a line in errors: `"data.csv", line 12`. */
  describe(line: number): Promise<string>;
  close(): Promise<void>;
}

export interface LineOptions {
  /** Whether the first line of every file is skipped. */
  readonly header: boolean;
  /** Whether a line break inside double quotes does not end the record, as in CSV. */
  readonly quotes: boolean;
}

/** The decoder removes a byte order mark. */
const UTF8 = new TextDecoder("utf-8", { fatal: true });
const NEWLINE = 10;
const RETURN = 13;
const QUOTE = 34;

export async function indexLines(
  documents: readonly Document[],
  options: LineOptions,
): Promise<LineIndex> {
  for (const document of documents) await checkEncoding(document);
  const store = byteStore(documents, NEWLINE);
  const table = new LineTable();
  const files = new FileCursor(documents);
  try {
    for await (const { start, end, blank } of scan(store, options.quotes)) {
      const isFirst = files.advance(start, end);
      if (!blank && !(options.header && isFirst)) table.add(start, end);
    }
  } catch (error) {
    await store.close();
    throw error;
  }
  return {
    count: table.count,
    read: async (line) => {
      const bytes = await store.read(table.start(line), table.length(line));
      try {
        return UTF8.decode(bytes).replace(/\r$/, "");
      } catch (error) {
        const where = await describeLine(documents, table.start(line));
        throw new LockstepError("DATA_FORMAT", `${where}: the text is not UTF-8.`, {
          hint: "Save the file as UTF-8.",
          cause: error,
        });
      }
    },
    describe: (line) => describeLine(documents, table.start(line)),
    close: () => store.close(),
  };
}

/** Refuses UTF-16, which spreadsheet programs write: it would be read as wrong text. */
async function checkEncoding(document: Document): Promise<void> {
  const start = await partOf(document, 0, Math.min(document.byteLength, 64));
  const [a, b] = start;
  const isMarked = (a === 0xff && b === 0xfe) || (a === 0xfe && b === 0xff);
  if (!isMarked && !start.includes(0)) return;
  throw new LockstepError(
    "DATA_FORMAT",
    `"${document.name}", line 1: the text is ${isMarked ? "UTF-16" : "not UTF-8: it holds a byte 0"}.`,
    { hint: "Save the file as UTF-8.", fields: { file: document.name } },
  );
}

interface Line {
  /** Offsets in the store; the line break at `end` is not part of the line. */
  readonly start: number;
  readonly end: number;
  readonly blank: boolean;
}

async function* scan(store: ByteStore, quotes: boolean): AsyncGenerator<Line> {
  let base = 0;
  let start = 0;
  let inQuotes = false;
  let lastByte = NEWLINE;
  for await (const piece of piecesOf(store)) {
    let at = 0;
    for (;;) {
      const newline = piece.indexOf(NEWLINE, at);
      const stop = newline === -1 ? piece.length : newline;
      if (quotes && hasOddQuotes(piece.subarray(at, stop))) inQuotes = !inQuotes;
      if (newline === -1) break;
      at = newline + 1;
      if (inQuotes) continue;
      const end = base + newline;
      const before = newline === 0 ? lastByte : piece[newline - 1];
      yield { start, end, blank: end === start || (end === start + 1 && before === RETURN) };
      start = end + 1;
    }
    lastByte = piece[piece.length - 1] ?? lastByte;
    base += piece.length;
  }
  // The store ends with a line break, so what remains began with a quote.
  if (start < store.byteLength) yield { start, end: store.byteLength, blank: false };
}

function hasOddQuotes(bytes: Uint8Array): boolean {
  let odd = false;
  for (let at = bytes.indexOf(QUOTE); at !== -1; at = bytes.indexOf(QUOTE, at + 1)) odd = !odd;
  return odd;
}

/** Tracks which file a line is in, for lines that come in order. */
class FileCursor {
  readonly #documents: readonly Document[];
  #index = 0;
  #start = 0;

  constructor(documents: readonly Document[]) {
    this.#documents = documents;
  }

  /**
   * Whether the line is the first of its file. Throws DATA_FORMAT for a line that does not end with
   * its file.
   */
  advance(start: number, end: number): boolean {
    const sizeOf = () => this.#documents[this.#index]?.byteLength ?? Number.POSITIVE_INFINITY;
    while (start > this.#start + sizeOf()) {
      this.#start += sizeOf() + 1;
      this.#index++;
    }
    if (end > this.#start + sizeOf()) {
      const name = this.#documents[this.#index]?.name ?? "";
      throw new LockstepError("DATA_FORMAT", `"${name}": a quoted text is never closed.`, {
        hint: 'A double quote inside a quoted text is written twice: "".',
        fields: { file: name },
      });
    }
    return start === this.#start;
  }
}

/** Two growing columns of numbers. */
class LineTable {
  #starts = new Float64Array(1024);
  #lengths = new Uint32Array(1024);
  count = 0;

  add(start: number, end: number): void {
    if (this.count === this.#starts.length) {
      const starts = new Float64Array(2 * this.count);
      const lengths = new Uint32Array(2 * this.count);
      starts.set(this.#starts);
      lengths.set(this.#lengths);
      this.#starts = starts;
      this.#lengths = lengths;
    }
    this.#starts[this.count] = start;
    this.#lengths[this.count] = end - start;
    this.count++;
  }

  start(line: number): number {
    return this.#starts[line] as number;
  }

  length(line: number): number {
    return this.#lengths[line] as number;
  }
}

/** Counts the lines before this one. Only messages need their number. */
async function describeLine(documents: readonly Document[], offset: number): Promise<string> {
  let start = 0;
  for (const document of documents) {
    if (offset > start + document.byteLength) {
      start += document.byteLength + 1;
      continue;
    }
    const before = await partOf(document, 0, offset - start);
    let line = 1;
    for (let at = before.indexOf(NEWLINE); at !== -1; at = before.indexOf(NEWLINE, at + 1)) line++;
    return `"${document.name}", line ${line}`;
  }
  return "the data";
}
