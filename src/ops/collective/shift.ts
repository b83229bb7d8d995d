import { collective } from "./shared.ts";

/**
 * What goes round a ring: each rank of an axis gets what the rank before it has, and the first one
 * what the last one has.
 */
export const shift = collective("lockstep::Shift", {
  attributes: {},
  infer: (context) => [context.input(0)],
  dims: () => [],
});
