/** What the values of a tensor must be, where they come from data as they are. */
export interface ValueRange {
  /** Both ends are allowed. */
  readonly low: number;
  readonly high: number;
  /** Whether only whole numbers are allowed. */
  readonly whole: boolean;
  /** One more value that is allowed: the label that does not count. */
  readonly except?: number | undefined;
}

/** `whole numbers from 0 to 9, or -100`. */
export function formatRange({ low, high, whole, except }: ValueRange): string {
  const also = except === undefined ? "" : `, or ${except}`;
  const kind = whole ? "whole numbers" : "numbers";
  return `${kind} ${Number.isFinite(high) ? `from ${low} to ${high}` : `of at least ${low}`}${also}`;
}
