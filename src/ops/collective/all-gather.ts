import { collective, dimOf, resized, SHARD } from "./shared.ts";

/** From a part of a dim on each rank of an axis to the whole on all of them. */
export const allGather = collective("lockstep::AllGather", {
  attributes: SHARD,
  infer: (context) => resized(context, dimOf(context), context.attributes.number("ranks")),
  dims: (context) => [dimOf(context)],
});
