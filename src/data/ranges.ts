/** Refuses values that a model cannot take, before it is trained on them. */
import { LockstepError } from "../errors.ts";
import { elementCount, isFloat, type Tensor } from "../tensor/index.ts";
import { numbersIn } from "./convert.ts";
import type { ModelInput, ValueRange } from "./source.ts";

/** Says which sample a row of the tensor holds: `"data.csv", line 12`. */
export type DescribeRow = (row: number) => Promise<string>;

/**
 * @throws DATA_FORMAT for the first value that is not a finite number, or lies outside of the
 * input's ranges
 */
export async function checkValues(
  input: ModelInput,
  field: string,
  tensor: Tensor,
  describe: DescribeRow,
): Promise<void> {
  const { ranges } = input;
  if (ranges === undefined && !isFloat(tensor.dtype)) return;
  const numbers = numbersIn(tensor.bytes, tensor.dtype);
  const wrong =
    ranges === undefined
      ? firstNotFinite(numbers)
      : firstOutside(numbers, ranges, elementCount(tensor.shape.slice(1)));
  if (wrong === undefined) return;
  const size = elementCount(tensor.shape.slice(1));
  const range = ranges?.[ranges.length === 1 ? 0 : wrong % size];
  const value = numbers[wrong] as number;
  const place = size === 1 ? "" : ` (element ${wrong % size} of the sample)`;
  throw new LockstepError(
    "DATA_FORMAT",
    `${await describe(Math.floor(wrong / size))}: field "${field}"${place} is ${value}; ` +
      `the model's input "${input.name}" takes ${range === undefined ? "finite numbers" : wordsOf(range)}.`,
    { hint: hintFor(range), fields: { field, value } },
  );
}

function hintFor(range: ValueRange | undefined): string {
  return range === undefined
    ? "Leave the sample out, or replace the value: one such number would reach every weight."
    : "Correct the data, or enlarge the model's table or its number of classes; labels that do not count need `ignoreIndex`.";
}

export function wordsOf({ whole = true, low, high, except }: ValueRange): string {
  const outside = except.filter((value) => value < low || value > high);
  const also = outside.length === 0 ? "" : `, and ${outside.join(", ")}`;
  return `${whole ? "whole numbers" : "numbers"} from ${low} to ${high}${also}`;
}

/**
 * A sum is finite only if all its terms are. Four sums run at a time, because the processor
 * computes them in parallel.
 */
function firstNotFinite(numbers: ArrayLike<number>): number | undefined {
  let [a, b, c, d] = [0, 0, 0, 0];
  const whole = numbers.length - (numbers.length % 4);
  for (let at = 0; at < whole; at += 4) {
    a += numbers[at] as number;
    b += numbers[at + 1] as number;
    c += numbers[at + 2] as number;
    d += numbers[at + 3] as number;
  }
  for (let at = whole; at < numbers.length; at++) a += numbers[at] as number;
  if (Number.isFinite(a + b + c + d)) return undefined;
  // The sum of large numbers may overflow although each of them is finite.
  for (let at = 0; at < numbers.length; at++) {
    if (!Number.isFinite(numbers[at])) return at;
  }
  return undefined;
}

function firstOutside(
  numbers: ArrayLike<number>,
  ranges: readonly (ValueRange | undefined)[],
  size: number,
): number | undefined {
  for (let at = 0; at < numbers.length; at++) {
    const range = ranges[ranges.length === 1 ? 0 : at % size];
    const value = numbers[at] as number;
    if (range === undefined) {
      if (!Number.isFinite(value)) return at;
    } else if (!isIn(range, value)) return at;
  }
  return undefined;
}

function isIn({ whole = true, low, high, except }: ValueRange, value: number): boolean {
  const isBetween = value >= low && value <= high && (!whole || Number.isInteger(value));
  return isBetween || except.includes(value);
}
