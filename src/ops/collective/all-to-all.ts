import { collective, dimOf, resized, SHARD } from "./shared.ts";

/** From a part of the dim `dim` on each rank of an axis to a part of the dim `to_dim`. */
export const allToAll = collective("lockstep::AllToAll", {
  attributes: { ...SHARD, to_dim: { kind: "int" }, to_sections: { kind: "ints", default: null } },
  infer: (context) => {
    const ranks = context.attributes.number("ranks");
    const type = resized(context, dimOf(context), ranks)[0];
    const { dtype, shape } = type;
    const to = dimOf(context, "to_dim");
    const size = (shape[to] as number) / ranks;
    if (!Number.isInteger(size)) context.fail(`dim ${to} does not divide among ${ranks} ranks`);
    return [{ dtype, shape: shape.with(to, size) }];
  },
  dims: (context) => [dimOf(context), dimOf(context, "to_dim")],
});
