import { reshape, transpose } from "../../functional/index.ts";
import type { OperatorDefinition } from "../../graph/index.ts";
import { along, divisionOf, linearDivisions, sectionedDim } from "../divisions.ts";
import { noFlops } from "../shared.ts";

/** Channels become blocks of `blocksize` × `blocksize` pixels: (batch, channel, height, width). */
export const depthToSpace: OperatorDefinition = {
  name: "DepthToSpace",
  inputs: [1, 1],
  outputs: [1, 1],
  attributes: {
    blocksize: { kind: "int" },
    mode: { kind: "string", default: "DCR" },
  },
  infer: (context) => {
    const { dtype, shape } = context.input(0);
    const block = context.attributes.number("blocksize");
    const [batch, channels, height, width] = shape as [number, number, number, number];
    if (shape.length !== 4 || channels % (block * block) !== 0) {
      context.fail(`takes (batch, channel, height, width) with channels in groups of ${block}²`);
    }
    return [{ dtype, shape: [batch, channels / block ** 2, height * block, width * block] }];
  },
  gradient: (context) => {
    const blocksize = context.attributes.number("blocksize");
    const dy = context.gradient(0);
    if (context.attributes.string("mode") === "DCR") {
      return [context.builder.one("SpaceToDepth", [dy], { blocksize })];
    }
    const { shape } = context.input(0);
    const [batch, channels, height, width] = shape as [number, number, number, number];
    const blocks = [batch, channels / blocksize ** 2, height, blocksize, width, blocksize];
    return [reshape(transpose(reshape(dy, blocks), [0, 1, 3, 5, 2, 4]), shape)];
  },
  flops: noFlops,
  moves: true,
  inPlace: false,
  divisions: (context) => {
    const { shape } = context.input(0);
    const block = context.attributes.number("blocksize");
    const channels = (shape[1] as number) / block ** 2;
    const made = sectionedDim(1, channels, [1], context.ranks);
    // In mode DCR, the channels of each place in a block lie side by side.
    const isSectioned = context.attributes.string("mode") === "DCR" && block > 1;
    const sections = Array.from({ length: block ** 2 }, () => channels);
    const read = isSectioned ? { shard: 1, sections } : { shard: 1 };
    return [
      ...[0, 2, 3].flatMap((dim) => along(context, { inputs: [dim], outputs: [dim] })),
      ...(made ? [divisionOf([read], [made])] : []),
      ...linearDivisions(context, "first"),
    ];
  },
};
