/** Sizes of memory as people write them. */
import { LockstepError } from "../errors.ts";

const UNITS = new Map(
  ["", "k", "M", "G", "T"].flatMap((prefix, power) => {
    const binary: [string, number] = [`${prefix}ib`.toLowerCase(), 1024 ** power];
    return [[`${prefix}b`.toLowerCase(), 1000 ** power] as const, ...(power === 0 ? [] : [binary])];
  }),
);

/**
 * Returns the bytes of `2 GB`, `512MiB`, `8e6`.
 * @throws INVALID_OPTION when the text is not a size
 */
export function bytesOfText(text: number | string): number {
  const [, digits = "", unit = ""] = /^\s*([\d.]+(?:e\d+)?)\s*([a-z]*)\s*$/i.exec(`${text}`) ?? [];
  const bytes = Math.floor(
    Number(digits || Number.NaN) * (UNITS.get(unit.toLowerCase() || "b") ?? Number.NaN),
  );
  if (Number.isSafeInteger(bytes) && bytes > 0) return bytes;
  throw new LockstepError("INVALID_OPTION", `"${text}" is not a size of memory.`, {
    hint: 'Write it as in "2 GB", "500 MB", "512 MiB", or as a number of bytes.',
  });
}

export function textOfBytes(bytes: number): string {
  const power = Math.min(4, Math.max(0, Math.floor(Math.log10(Math.max(1, bytes)) / 3)));
  const unit = ["B", "kB", "MB", "GB", "TB"][power] as string;
  return `${Number((bytes / 1000 ** power).toPrecision(4))} ${unit}`;
}
