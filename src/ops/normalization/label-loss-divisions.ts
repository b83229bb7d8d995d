/** How losses of scores and labels are divided: by labels, and by classes (Megatron-LM, 2019). */
import {
  and,
  cast,
  div,
  greaterOrEqual,
  less,
  mul,
  reduceSum,
  sub,
  where,
} from "../../functional/index.ts";
import type { Division, DivisionContext, LocalContext, Value } from "../../graph/index.ts";
import { byteLength, elementCount } from "../../tensor/index.ts";
import { along } from "../divisions.ts";
import { unsectioned } from "../parts.ts";
import { cutSoftmax } from "./cut-softmax.ts";
import { weigh } from "./label-weights.ts";
import { stashType } from "./shared.ts";

/** @param ofScores whether the operator takes scores, and makes log-probabilities of them */
export function labelLossDivisions(context: DivisionContext, ofScores: boolean): Division[] {
  const reduction = context.attributes.string("reduction");
  const { dtype, shape } = context.input(0);
  const weights = context.inputs.slice(2).map(() => undefined);
  const logs = (dim: number) => context.outputs.slice(1).map(() => dim);
  const isWeighted = context.inputs[2] !== undefined || context.attributes.has("ignore_index");
  const ofMean =
    reduction === "mean" && isWeighted ? byteLength({ dtype: stashType(dtype), shape: [] }) : 0;
  const byLabel = shape.flatMap((_, dim) => {
    if (dim === 1) return [];
    const label = dim === 0 ? 0 : dim - 1;
    return along(context, {
      inputs: [dim, label, ...weights],
      outputs: [reduction === "none" ? label : "partial", ...logs(dim)],
      local: reduction === "mean" ? termOfMean : undefined,
    }).map((division) => ({ ...division, exchanged: ofMean }));
  });
  const byClass = along(unsectioned(context), {
    inputs: [1, undefined, ...weights],
    outputs: ["partial", ...logs(1)],
    local: (rank) => partOfClasses(rank, ofScores),
  });
  // The largest score of each label and the sum of its powers.
  const exchanged = ofScores ? 2 * byteLength({ dtype, shape: shape.with(1, 1) }) : 0;
  return [...byLabel, ...byClass.map((division) => ({ ...division, exchanged }))];
}

/** A rank has some of the labels: its sum, divided by the weight of the labels of all ranks. */
function termOfMean(rank: LocalContext): readonly Value[] {
  const { inputs, input, again, allReduce, ranks } = rank;
  const { weight } = weigh(rank, input(0), input(1), inputs[2]);
  const [losses, ...logs] = again(inputs, { reduction: "none" });
  const total =
    weight === undefined ? ranks * elementCount(input(1).shape) : allReduce(wideSum(weight), "sum");
  return [meanOf(losses as Value, total), ...logs];
}

/** A sum over a batch, which overflows in float16. */
function wideSum(of: Value): Value {
  return reduceSum(cast(of, stashType(of.dtype)), { keepdims: false });
}

function meanOf(losses: Value, total: Value | number): Value {
  return cast(div(wideSum(losses), total), losses.dtype);
}

/** A rank has the scores of some of the classes: labels of other classes add nothing there. */
function partOfClasses(rank: LocalContext, ofScores: boolean): readonly Value[] {
  const { builder, attributes, input, inputs, place } = rank;
  const scores = input(0);
  const logs = ofScores ? cutSoftmax(rank, 1, true) : scores;
  const { labels, weight } = weigh(rank, scores, input(1), inputs[2]);
  const classes = scores.shape[1] as number;
  const own = sub(labels, cast(mul(place(), classes), labels.dtype));
  const isOwn = and(greaterOrEqual(own, 0), less(own, classes));
  const each = builder.one("NegativeLogLikelihoodLoss", [logs, where(isOwn, own, -1)], {
    reduction: "none",
    ignore_index: -1,
  });
  const losses = weight === undefined ? each : mul(each, weight);
  const made = ofScores ? [logs] : [];
  const reduction = attributes.string("reduction");
  if (reduction === "none") return [losses, ...made];
  if (reduction === "sum") return [reduceSum(losses, { keepdims: false }), ...made];
  const total = weight === undefined ? elementCount(labels.shape) : wideSum(weight);
  return [meanOf(losses, total), ...made];
}
