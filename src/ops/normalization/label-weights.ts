/** What each label counts in a loss. */
import { cast, equal, gather, mul, not, where } from "../../functional/index.ts";
import type { AttributeReader, Value } from "../../graph/index.ts";

/**
 * Labels that are all valid indices, and the weight of each; the weight is undefined if each counts
 * 1.
 */
export function weigh(
  { attributes }: { readonly attributes: AttributeReader },
  x: Value,
  given: Value,
  weights: Value | undefined,
): { labels: Value; weight: Value | undefined } {
  const ignored = attributes.has("ignore_index")
    ? equal(given, attributes.number("ignore_index"))
    : undefined;
  const labels = ignored === undefined ? given : where(ignored, 0, given);
  const weight = weights === undefined ? undefined : gather(weights, labels);
  if (ignored === undefined) return { labels, weight };
  const counted = cast(not(ignored), x.dtype);
  return { labels, weight: weight === undefined ? counted : mul(weight, counted) };
}
