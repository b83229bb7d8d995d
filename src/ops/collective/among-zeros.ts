import { collective, dimOf, resized, SHARD } from "./shared.ts";

/**
 * What ranks of an axis have parts of, as the terms of a sum: a rank's part at its place, and zeros at
 * the places of the others. Nothing is sent.
 */
export const amongZeros = collective("lockstep::AmongZeros", {
  attributes: SHARD,
  infer: (context) => resized(context, dimOf(context), context.attributes.number("ranks")),
  dims: (context) => [dimOf(context)],
});
