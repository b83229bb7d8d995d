import type { OperatorDefinition } from "../../graph/index.ts";
import { along, divisionOf, linearDivisions, sectionedDim } from "../divisions.ts";
import { noFlops } from "../shared.ts";

/** Blocks of `blocksize` × `blocksize` pixels become channels: (batch, channel, height, width). */
export const spaceToDepth: OperatorDefinition = {
  name: "SpaceToDepth",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: { blocksize: { kind: "int" } },
  infer: (context) => {
    const { dtype, shape } = context.input(0);
    const block = context.attributes.number("blocksize");
    const [batch, channels, height, width] = shape as [number, number, number, number];
    if (shape.length !== 4 || height % block !== 0 || width % block !== 0) {
      context.fail(`takes (batch, channel, height, width) with sizes in steps of ${block}`);
    }
    return [{ dtype, shape: [batch, channels * block ** 2, height / block, width / block] }];
  },
  gradient: (context) => {
    const blocksize = context.attributes.number("blocksize");
    return [context.builder.one("DepthToSpace", [context.gradient(0)], { blocksize })];
  },
  flops: noFlops,
  moves: true,
  inPlace: false,
  divisions: (context) => {
    const { shape } = context.input(0);
    const block = context.attributes.number("blocksize");
    const channels = shape[1] as number;
    const read = sectionedDim(1, channels, [1], context.ranks);
    const sections = Array.from({ length: block ** 2 }, () => channels);
    const made = block > 1 ? { shard: 1, sections } : { shard: 1 };
    return [
      ...[0, 2, 3].flatMap((dim) => along(context, { inputs: [dim], outputs: [dim] })),
      ...(read ? [divisionOf([read], [made])] : []),
      ...linearDivisions(context, "first"),
    ];
  },
};
