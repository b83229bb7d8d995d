/**
 * Data that is a table: rows of named fields. Formats give a `Records`; this file makes a `Dataset` of it,
 * matching fields to inputs, converting types, and holding rows out.
 */
import { LockstepError } from "../errors.ts";
import { byteLength, bytesPerElement, elementCount, type Tensor } from "../tensor/index.ts";
import { type Fault, findFault } from "./check.ts";
import { convert } from "./convert.ts";
import { bytesOf, type Field, type Match, matchFields } from "./match.ts";
import { permutation } from "./order.ts";
import type { Dataset, OpenRequest, SampleSet, SourceOptions } from "./source.ts";

export interface Records {
  readonly rows: number;
  readonly fields: Readonly<Record<string, Field>>;
  /**
   * Reads rows, whole, into one array a field asked for: `rows.length` values of the field's own type, in order.
   */
  read(rows: readonly number[], into: Readonly<Record<string, Uint8Array>>): Promise<void>;
  /** All rows of a field, if they lie in memory one after the other. */
  whole?(field: string): Uint8Array | undefined;
  /** Where a row of a field is, for errors: `"data.csv", line 12`. */
  describe(row: number, field: string): Promise<string>;
  close(): Promise<void>;
}

/** Fixed for good: what is held out must not change from run to run. */
const SPLIT_SEED = 20_211;

/** `source` is for people: `csv("ratings.csv")`. */
export async function openRecords(
  records: Records,
  request: OpenRequest,
  options: SourceOptions,
  source: string,
): Promise<Dataset> {
  try {
    const matches = matchFields(request, options, records.fields, source);
    const checked = await checkWhole(records, matches);
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
          { into, checked },
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

/** Rows kept for validation: the nearest number, and none of data too small to part with any. */
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

/** Rows that are looked at together when all are. */
const ROWS_AT_ONCE = 4096;

/** Looks through the fields that lie in memory, before any row is learned from. @returns their names */
async function checkWhole(
  records: Records,
  matches: readonly Match[],
): Promise<ReadonlySet<string>> {
  const checked = new Set<string>();
  for (const match of matches) {
    const { input, name, field } = match;
    const bytes = records.whole?.(name);
    if (bytes === undefined) continue;
    const size = elementCount(field.shape);
    const bytesPerRow = size * bytesOf(field.type);
    const scratch = new Uint8Array(ROWS_AT_ONCE * size * bytesPerElement(input.type.dtype));
    for (let row = 0; row < records.rows; row += ROWS_AT_ONCE) {
      const count = Math.min(ROWS_AT_ONCE, records.rows - row);
      const source = bytes.subarray(row * bytesPerRow, (row + count) * bytesPerRow);
      const target = scratch.subarray(0, count * size * bytesPerElement(input.type.dtype));
      const fault = fill(source, target, match, true);
      if (fault !== undefined) throw await faultOf(records, match, fault, (index) => row + index);
    }
    checked.add(input.name);
  }
  return checked;
}

/** Converts values to what the input takes, and looks through them if asked. */
function fill(
  source: Uint8Array,
  target: Uint8Array,
  { input, field }: Match,
  check: boolean,
): Fault | undefined {
  const to = input.type.dtype;
  const fault = convert(source, target, { from: field.type, to, scale: field.scale });
  if (fault !== undefined || !check) return fault;
  return findFault(target, to, elementCount(field.shape), input.ranges);
}

async function faultOf(
  records: Records,
  { input, name, field }: Match,
  { at, value, why, range }: Fault,
  rowOf: (index: number) => number,
): Promise<LockstepError> {
  const size = elementCount(field.shape);
  const row = rowOf(Math.floor(at / size));
  const where = await records.describe(row, name);
  const what = `holds ${value}${size === 1 ? "" : ` at place ${at % size}`}`;
  return new LockstepError("DATA_FORMAT", `${where}: field "${name}" ${what}, ${why}.`, {
    hint:
      range === undefined
        ? `It feeds the model's input "${input.name}". Mend or leave out the row.`
        : `It feeds the model's input "${input.name}". Numbers count from 0: mend the data, or make the model larger.`,
    fields: {
      field: name,
      input: input.name,
      row,
      value: String(value),
      ...(range === undefined ? {} : { low: range.low, high: String(range.high) }),
    },
  });
}

async function readMatched(
  records: Records,
  matches: readonly Match[],
  rows: readonly number[],
  {
    into,
    checked,
  }: {
    readonly into: Readonly<Record<string, Tensor>>;
    readonly checked: ReadonlySet<string>;
  },
): Promise<void> {
  const wanted = matches.filter(({ input }) => Object.hasOwn(into, input.name));
  const raw: Record<string, Uint8Array> = {};
  for (const { name, field } of wanted) {
    raw[name] ??= new Uint8Array(rows.length * elementCount(field.shape) * bytesOf(field.type));
  }
  await records.read(rows, raw);
  for (const match of wanted) {
    const { input, name } = match;
    const target = targetOf(into, input.name, rows.length);
    const own = { ...match, input: { ...input, type: target } };
    const fault = fill(raw[name] as Uint8Array, target.bytes, own, !checked.has(input.name));
    if (fault !== undefined) {
      throw await faultOf(records, match, fault, (index) => rows[index] as number);
    }
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
