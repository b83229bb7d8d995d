import { collective, dimOf, resized, SHARD } from "./shared.ts";

/** The part of a dim that a rank of an axis has of what all of them hold. Nothing is sent. */
export const ownPart = collective("lockstep::OwnPart", {
  attributes: SHARD,
  infer: (context) => resized(context, dimOf(context), 1 / context.attributes.number("ranks")),
  dims: (context) => [dimOf(context)],
});
