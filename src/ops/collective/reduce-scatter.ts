import { collective, dimOf, resized, SHARD } from "./shared.ts";

/** From the terms of a sum on the ranks of an axis to a part of a dim of the sum on each of them. */
export const reduceScatter = collective("lockstep::ReduceScatter", {
  attributes: SHARD,
  infer: (context) => resized(context, dimOf(context), 1 / context.attributes.number("ranks")),
  dims: (context) => [dimOf(context)],
});
