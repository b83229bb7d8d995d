/**
 * Rows of a small text file, read once and kept as numbers: what is wrong with any of them is told before the first step, and no
 * batch parses text again.
 */
import { elementCount } from "../tensor/index.ts";
import { memoryColumn, recordsOf } from "./columns.ts";
import type { LineIndex } from "./lines.ts";
import type { Records } from "./records.ts";

/** Text up to this size is read whole: about half a second of a process. */
const MAX_TEXT_BYTES = 2 ** 23;
const MAX_KEPT_NUMBERS = 2 ** 24;
const ROWS_AT_ONCE = 2048;

/** `records` themselves where they are too large; `needed`: the fields that the model asks for. */
export async function keepSmall(
  records: Records,
  lines: LineIndex,
  needed: readonly string[],
): Promise<Records> {
  const names = needed.filter((name) => Object.hasOwn(records.fields, name));
  const sizes = names.map((name) => elementCount(records.fields[name]?.shape ?? []));
  const perRow = sizes.reduce((sum, size) => sum + size, 0);
  if (names.length === 0) return records;
  if (lines.byteLength > MAX_TEXT_BYTES || perRow * records.rows > MAX_KEPT_NUMBERS) return records;
  const kept = names.map((_, i) => new Uint8Array(8 * (sizes[i] as number) * records.rows));
  for (let row = 0; row < records.rows; row += ROWS_AT_ONCE) {
    const count = Math.min(ROWS_AT_ONCE, records.rows - row);
    const rows = Array.from({ length: count }, (_, index) => row + index);
    const into = names.map((name, i) => {
      const bytes = 8 * (sizes[i] as number);
      return [name, (kept[i] as Uint8Array).subarray(row * bytes, (row + count) * bytes)] as const;
    });
    await records.read(rows, Object.fromEntries(into));
  }
  const columns = names.map((name, i) => {
    const shape = [records.rows, ...(records.fields[name]?.shape ?? [])];
    return [name, memoryColumn({ dtype: "float64", shape }, kept[i] as Uint8Array)] as const;
  });
  const { read } = recordsOf(Object.fromEntries(columns), "");
  return { ...records, read, whole: (field) => kept[names.indexOf(field)] };
}
