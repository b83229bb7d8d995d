/**
 * Data that is a table: rows of named fields. Formats provide `Records`; this file turns them into
 * a `Dataset`: it matches fields to inputs, converts types, and holds rows out.
 */
import { LockstepError } from "../errors.ts";
import { byteLength, elementCount, type Tensor } from "../tensor/index.ts";
import { convert } from "./convert.ts";
import { bytesOf, type Field, type Match, matchFields } from "./match.ts";
import { permutation } from "./order.ts";
import { checkValues, type DescribeRow } from "./ranges.ts";
import type { Dataset, OpenRequest, SampleSet, SourceOptions } from "./source.ts";

export interface Records {
  readonly rows: number;
  readonly fields: Readonly<Record<string, Field>>;
  /**
   * Reads whole rows into one array for each requested field: `rows.length` values of the field's
   * own type, in order.
   */
  read(rows: readonly number[], into: Readonly<Record<string, Uint8Array>>): Promise<void>;
  /** Says in errors where a row comes from: `"data.csv", line 12`. */
  describe(row: number): Promise<string>;
  close(): Promise<void>;
}

/**
 * Sources with at most this many rows are checked against the model's ranges before the first step.
 */
const MAX_ROWS_CHECKED = 1 << 16;
const ROWS_AT_ONCE = 1 << 10;

/**
 * The seed of the split. It must never change, because what is held out must not change from run to
 * run.
 */
const SPLIT_SEED = 20_211;

/** @param source the source in words for people: `csv("ratings.csv")` */
export async function openRecords(
  records: Records,
  request: OpenRequest,
  options: SourceOptions,
  source: string,
): Promise<Dataset> {
  try {
    const matches = matchFields(request, options, records.fields, source);
    if (records.rows <= MAX_ROWS_CHECKED) await checkRanges(records, matches);
    const held = heldOutCount(records.rows, options.heldOut ?? 0.1);
    checkSize(records.rows - held, request, source);
    const shuffled = permutation(records.rows, SPLIT_SEED, 0);
    const part = (first: number, length: number): SampleSet => ({
      length,
      read: (indices, into) =>
        readMatched(
          records,
          matches,
          indices.map((index) => shuffled(first + index)),
          into,
        ),
    });
    return {
      train: part(held, records.rows - held),
      validation: held === 0 ? undefined : part(0, held),
      text: undefined,
      summary: `${records.rows.toLocaleString("en")} rows of ${source}${held === 0 ? "" : `, ${held.toLocaleString("en")} held out`}`,
      close: () => records.close(),
    };
  } catch (error) {
    await records.close();
    throw error;
  }
}

/** The number of rows kept for validation, rounded to the nearest integer: 0 for few rows. */
function heldOutCount(rows: number, part: number): number {
  checkHeldOut(part);
  return Math.round(rows * part);
}

export function checkHeldOut(part: number): void {
  if (part >= 0 && part <= 0.5) return;
  throw new LockstepError("INVALID_OPTION", `heldOut is ${part}; it must be from 0 to 0.5.`, {
    fields: { heldOut: part },
  });
}

/** Throws DATA_TOO_SMALL if the samples for training do not fill one batch. */
export function checkSize(samples: number, request: OpenRequest, source: string): void {
  const batch = request.batch ?? request.inputs[0]?.type.shape[0] ?? 1;
  if (samples >= batch) return;
  throw new LockstepError(
    "DATA_TOO_SMALL",
    `A batch is ${batch} samples, but ${source} has only ${samples} to train on.`,
    { hint: "Use a smaller batch, or more data.", fields: { batch, samples } },
  );
}

async function readMatched(
  records: Records,
  matches: readonly Match[],
  rows: readonly number[],
  into: Readonly<Record<string, Tensor>>,
): Promise<void> {
  const wanted = matches.filter(({ input }) => Object.hasOwn(into, input.name));
  const raw: Record<string, Uint8Array> = {};
  for (const { name, field } of wanted) {
    raw[name] ??= new Uint8Array(rows.length * elementCount(field.shape) * bytesOf(field.type));
  }
  await records.read(rows, raw);
  const describe = (row: number) => records.describe(rows[row] as number);
  for (const match of wanted) {
    const target = targetOf(into, match.input.name, rows.length);
    await convertRows(match, raw[match.name] as Uint8Array, target, describe);
    await checkValues(match.input, match.name, target, describe);
  }
}

/** Converts all rows at once. If that fails, converts them one after the other, to name the row. */
async function convertRows(
  { field, name }: Match,
  source: Uint8Array,
  target: Tensor,
  describe: DescribeRow,
): Promise<void> {
  const conversion = {
    from: field.type,
    to: target.dtype,
    scale: field.scale,
    what: `field "${name}"`,
  };
  try {
    convert(source, target.bytes, conversion);
  } catch (error) {
    if (!(error instanceof LockstepError)) throw error;
    const [rows = 1] = target.shape;
    const part = (bytes: Uint8Array, row: number) => {
      const size = bytes.byteLength / rows;
      return bytes.subarray(row * size, (row + 1) * size);
    };
    for (let row = 0; row < rows; row++) {
      try {
        convert(part(source, row), part(target.bytes, row), conversion);
      } catch {
        throw new LockstepError("DATA_FORMAT", `${await describe(row)}: ${error.message}`, {
          cause: error,
        });
      }
    }
    throw error;
  }
}

/** Reads the fields that have ranges, only to check them. */
async function checkRanges(records: Records, matches: readonly Match[]): Promise<void> {
  const limited = matches.filter(({ input }) => input.ranges !== undefined);
  if (limited.length === 0) return;
  for (let first = 0; first < records.rows; first += ROWS_AT_ONCE) {
    const count = Math.min(ROWS_AT_ONCE, records.rows - first);
    const rows = Array.from({ length: count }, (_, at) => first + at);
    const into = limited.map(({ input }): [string, Tensor] => {
      const type = { dtype: input.type.dtype, shape: [count, ...input.type.shape.slice(1)] };
      return [input.name, { ...type, bytes: new Uint8Array(byteLength(type)) }];
    });
    await readMatched(records, limited, rows, Object.fromEntries(into));
  }
}

/** The tensor to fill, checked: a batch of another size would be a bug of the caller. */
export function targetOf(
  into: Readonly<Record<string, Tensor>>,
  name: string,
  samples: number,
): Tensor {
  const target = into[name];
  if (
    target === undefined ||
    target.shape[0] !== samples ||
    target.bytes.byteLength !== byteLength(target)
  ) {
    throw new Error(`Lockstep bug: ${samples} samples do not fit the tensor for "${name}"`);
  }
  return target;
}
