import { collective } from "./shared.ts";

/** From the terms of a sum (or of a maximum) on the ranks of an axis to the result on all of them. */
export const allReduce = collective("lockstep::AllReduce", {
  attributes: { kind: { kind: "string", default: "sum" } },
  infer: (context) => {
    const kind = context.attributes.string("kind");
    if (kind !== "sum" && kind !== "max") context.fail(`there is no reduction "${kind}"`);
    return [context.input(0)];
  },
  dims: () => [],
  // A maximum of sums is not the sum of maxima.
  linear: false,
});
