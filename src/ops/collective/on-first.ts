import { collective } from "./shared.ts";

/**
 * What all ranks of an axis hold, as the terms of a sum: the value on the first of them, and zeros on
 * the others. Nothing is sent.
 */
export const onFirst = collective("lockstep::OnFirst", {
  attributes: {},
  infer: (context) => [context.input(0)],
  dims: () => [],
});
