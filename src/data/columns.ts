/**
 * Arrays side by side, one row for each sample. Small arrays are kept in memory, others are read
 * from their files row by row.
 */
import { LockstepError } from "../errors.ts";
import { openRange, type RangeReader } from "../files/index.ts";
import { byteLength, elementCount, formatShape, type TensorType } from "../tensor/index.ts";
import type { Field } from "./match.ts";
import { bytesOf } from "./match.ts";
import type { Records } from "./records.ts";

export interface Column {
  readonly field: Field;
  readonly rows: number;
  /** Reads one row, of the field's own type, into exactly its bytes. */
  read(row: number, into: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** The largest array that is kept in memory. */
const MAX_CACHED_BYTES = 2 ** 28;

/** A column of an array in memory. The first dim of `type` counts the rows. */
export function memoryColumn(type: TensorType, bytes: Uint8Array, scale?: number): Column {
  const [rows = 0, ...shape] = type.shape;
  const size = rowBytes(type);
  return {
    field: { type: type.dtype, shape, scale },
    rows,
    read: async (row, into) => into.set(bytes.subarray(row * size, (row + 1) * size)),
    close: () => Promise.resolve(),
  };
}

/**
 * A column of an array that lies in a file from `offset` on. The column closes the file, also if
 * this function throws.
 */
export async function fileColumn(
  path: string,
  type: TensorType,
  offset: number,
  maxCachedBytes = MAX_CACHED_BYTES,
): Promise<Column> {
  const file = await openRange(path);
  if (byteLength(type) > maxCachedBytes) return rangeColumn(file, type, offset);
  try {
    const bytes = new Uint8Array(byteLength(type));
    await file.read(offset, bytes);
    return memoryColumn(type, bytes);
  } finally {
    await file.close();
  }
}

function rangeColumn(file: RangeReader, type: TensorType, offset: number): Column {
  const [rows = 0, ...shape] = type.shape;
  const size = rowBytes(type);
  return {
    field: { type: type.dtype, shape },
    rows,
    read: (row, into) => file.read(offset + row * size, into),
    close: () => file.close(),
  };
}

function rowBytes(type: TensorType): number {
  return byteLength({ dtype: type.dtype, shape: type.shape.slice(1) });
}

/** Refuses scalars, which have no rows. */
export function checkRows(name: string, type: TensorType, source: string): void {
  if (type.shape.length > 0) return;
  throw new LockstepError(
    "DATA_FORMAT",
    `${source}: "${name}" is a scalar, but must have one value for each sample.`,
    {
      hint: "The first dim of an array counts the samples.",
    },
  );
}

/**
 * Throws DATA_FORMAT if the columns differ in their number of rows, DATA_EMPTY if there are no
 * rows.
 */
export function recordsOf(columns: Readonly<Record<string, Column>>, source: string): Records {
  const entries = Object.entries(columns);
  const rows = entries[0]?.[1].rows ?? 0;
  for (const [name, column] of entries) {
    if (column.rows === rows) continue;
    throw new LockstepError(
      "DATA_FORMAT",
      `${source}: "${entries[0]?.[0]}" has ${rows} samples, but "${name}" has ${column.rows}.`,
      { hint: "The first dim of every array counts the same samples." },
    );
  }
  if (rows === 0) throw new LockstepError("DATA_EMPTY", `${source} has no samples.`);
  return {
    rows,
    fields: Object.fromEntries(entries.map(([name, { field }]) => [name, field])),
    read: async (wanted, into) => {
      for (const [name, target] of Object.entries(into)) {
        await readColumn(columns[name] as Column, wanted, target);
      }
    },
    describe: (row) => Promise.resolve(`${source}, row ${row} (counted from 0)`),
    close: async () => {
      await Promise.all(entries.map(([, column]) => column.close()));
    },
  };
}

async function readColumn(
  column: Column,
  wanted: readonly number[],
  target: Uint8Array,
): Promise<void> {
  const size = elementCount(column.field.shape) * bytesOf(column.field.type);
  await Promise.all(
    wanted.map((row, index) => column.read(row, target.subarray(index * size, (index + 1) * size))),
  );
}

/** Opens columns one after the other. If one fails, those opened before are closed. */
export async function openColumns(
  names: readonly string[],
  open: (name: string) => Promise<Column>,
): Promise<Record<string, Column>> {
  const columns: Record<string, Column> = {};
  try {
    for (const name of names) columns[name] = await open(name);
  } catch (error) {
    await Promise.all(Object.values(columns).map((column) => column.close()));
    throw error;
  }
  return columns;
}

/** Describes the arrays of a file for messages: `"image" float32[28, 28]` and so on. */
export function describeArrays(entries: Iterable<readonly [string, TensorType]>): string {
  const all = Array.from(
    entries,
    ([name, { dtype, shape }]) => `"${name}" ${dtype}${formatShape(shape)}`,
  );
  return all.length === 0 ? "nothing" : all.join(", ");
}
