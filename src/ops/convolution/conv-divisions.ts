/**
 * How convolutions are divided: by samples, by groups, by channels of the result, and by channels of
 * the input into terms of a sum, of which the bias is divided into terms, too.
 */
import type { Division, DivisionContext } from "../../graph/index.ts";
import { along, divisionOf, sectionedDim } from "../divisions.ts";
import { inUnits } from "../parts.ts";

/** The dims of the kernel. Dim 0 has the channels of all groups, dim 1 those of one group. */
export interface KernelDims {
  /** The dim of the channels of the input. */
  readonly from: 0 | 1;
  /** The dim of the channels of the result. */
  readonly to: 0 | 1;
}

/** More groups than this are divided only as whole groups. */
const MOST_SECTIONS = 64;

/** X and the result are (N, channels, …). */
export function convDivisions(context: DivisionContext, dims: KernelDims): Division[] {
  const group = context.attributes.number("group");
  const bias = biasOf(context);
  const groups = along(inUnits(context, group), {
    inputs: [1, 0, ...bias(0)],
    outputs: [1],
    local: ({ inputs, again, ranks }) => again(inputs, { group: group / ranks }),
  });
  return [
    ...along(context, { inputs: [0, undefined, ...bias(undefined)], outputs: [0] }),
    ...groups,
    ...byChannels(context, dims),
    divisionOf(["partial", undefined, ...bias("partial" as const)], ["partial"]),
    divisionOf([undefined, "partial", ...bias("partial" as const)], ["partial"]),
  ];
}

/** The placement of the bias, as a list that is empty where the node has no third input. */
function biasOf({ inputs }: DivisionContext) {
  return <T>(placed: T): (T | undefined)[] => inputs.slice(2).map((type) => type && placed);
}

/** Channels are cut within each group, so that every rank has a part of all groups. */
function byChannels(context: DivisionContext, { from, to }: KernelDims): Division[] {
  const { ranks } = context;
  const group = context.attributes.number("group");
  const bias = biasOf(context);
  const [x, kernel, y] = [context.input(0), context.input(1), context.outputs[0]];
  if (group > MOST_SECTIONS) return [];
  const proportions = group === 1 ? context.proportions : [Array.from({ length: group }, () => 1)];
  return proportions.flatMap((proportion) => {
    const ofAll = (dim: number, size: number | undefined) =>
      sectionedDim(dim, size ?? 0, proportion, ranks);
    const ofKernel = (dim: 0 | 1) =>
      dim === 0 || group === 1
        ? ofAll(dim, kernel.shape[dim])
        : sectionedDim(dim, kernel.shape[dim] ?? 0, [1], ranks);
    const [read, readKernel] = [ofAll(1, x.shape[1]), ofKernel(from)];
    const [made, madeKernel] = [ofAll(1, y?.shape[1]), ofKernel(to)];
    const ofBias = ofAll(0, y?.shape[1]);
    const divisions: Division[] = [];
    if (made && madeKernel && ofBias) {
      divisions.push(divisionOf([undefined, madeKernel, ...bias(ofBias)], [made]));
    }
    if (read && readKernel) {
      divisions.push(divisionOf([read, readKernel, ...bias("partial" as const)], ["partial"]));
    }
    return divisions;
  });
}
