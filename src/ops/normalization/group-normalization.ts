import {
  add,
  mul,
  reciprocal,
  reduceMean,
  reduceSum,
  reshape,
  sqrt,
  sub,
} from "../../functional/index.ts";
import type {
  Division,
  DivisionContext,
  GradientContext,
  OperatorDefinition,
  Value,
} from "../../graph/index.ts";
import { elementCount } from "../../tensor/index.ts";
import { along } from "../divisions.ts";
import { inUnits } from "../parts.ts";
import { flopsPerElement } from "../shared.ts";
import { checkedChannels } from "./shared.ts";

/**
 * (x − mean) / √(variance + epsilon) · scale + bias of X (N, C, …): statistics over each of
 * `num_groups` groups of channels, scale and bias for each channel (Wu & He 2018).
 */
export const groupNormalization: OperatorDefinition = {
  name: "GroupNormalization",
  inputs: [3, 3],
  outputs: [1, 1],
  attributes: {
    epsilon: { kind: "float", default: 1e-5 },
    num_groups: { kind: "int" },
    stash_type: { kind: "int", default: 1 },
  },
  infer: (context) => {
    const groups = context.attributes.number("num_groups");
    const channels = context.input(0).shape[1] as number;
    if (channels % groups !== 0) {
      context.fail(`${channels} channels do not divide into ${groups} groups`);
    }
    return [checkedChannels(context, 3, 2)];
  },
  gradient: (context) => groupGradient(context, context.attributes.number("num_groups")),
  flops: flopsPerElement(8),
  inPlace: false,
  divisions: (context) => {
    const groups = context.attributes.number("num_groups");
    return groupDivisions(context, groups, ({ inputs, again, ranks }) =>
      again(inputs, { num_groups: groups / ranks }),
    );
  },
};

/** Group normalization with one group for each channel (Ulyanov et al. 2016). */
export const instanceNormalization: OperatorDefinition = {
  name: "InstanceNormalization",
  inputs: [3, 3],
  outputs: [1, 1],
  attributes: { epsilon: { kind: "float", default: 1e-5 } },
  infer: (context) => [checkedChannels(context, 3, 2)],
  gradient: (context) => groupGradient(context, context.input(0).shape[1] as number),
  flops: flopsPerElement(8),
  inPlace: false,
  divisions: (context) => groupDivisions(context, context.input(0).shape[1] as number),
};

/**
 * By samples, and by groups of channels.
 * @param local what a rank computes of its groups
 */
function groupDivisions(
  context: DivisionContext,
  groups: number,
  local?: Division["local"],
): Division[] {
  return [
    ...along(context, { inputs: [0, undefined, undefined], outputs: [0] }),
    ...along(inUnits(context, groups), { inputs: [1, 0, 0], outputs: [1], local }),
  ];
}

/**
 * With c = x − mean, r = 1/√(variance + ε), g = dy · scale in each group: r · (g − mean(g) − c · r²
 * · mean(g · c)).
 */
function groupGradient(context: GradientContext, groups: number): (Value | undefined)[] {
  const [x, scale, dy] = [context.input(0), context.input(1), context.gradient(0)];
  const [batch, channels] = x.shape as unknown as [number, number];
  const rows = batch * groups;
  const size = elementCount(x.shape) / rows;
  const byGroup = (value: Value) => reshape(value, [rows, size]);
  const perChannel = (value: Value) =>
    reshape(value, [batch, channels, elementCount(x.shape.slice(2))]);
  const lines = byGroup(x);
  const centered = sub(lines, reduceMean(lines, { axes: [1] }));
  const variance = reduceMean(mul(centered, centered), { axes: [1] });
  const inverse = reciprocal(sqrt(add(variance, context.attributes.number("epsilon"))));
  const dx = () => {
    const g = byGroup(mul(perChannel(dy), reshape(scale, [channels, 1])));
    const along = mul(reduceMean(mul(g, centered), { axes: [1] }), mul(inverse, inverse));
    const inner = sub(sub(g, reduceMean(g, { axes: [1] })), mul(centered, along));
    return reshape(mul(inner, inverse), x.shape);
  };
  const sums = (value: Value) => reduceSum(perChannel(value), { axes: [0, 2], keepdims: false });
  return [
    context.needs(0) ? dx() : undefined,
    context.needs(1) ? sums(mul(byGroup(dy), mul(centered, inverse))) : undefined,
    context.needs(2) ? sums(dy) : undefined,
  ];
}
