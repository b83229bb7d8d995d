import { elementCount } from "../tensor/index.ts";
import type { Kernel, KernelContext } from "./kernel.ts";
import { fill, type ReferenceTensor } from "./tensor.ts";

/** −weight · log-probability of each label, and the weight of each label in a mean. */
function lossOf(
  { input, inputs, output, attributes }: KernelContext,
  logs: ReferenceTensor,
): ReferenceTensor {
  const labels = input(1).data;
  const classes = logs.shape[1] as number;
  const inner = elementCount(logs.shape.slice(2));
  const ignored = attributes.has("ignore_index") ? attributes.number("ignore_index") : undefined;
  const weights = Array.from(labels, (label) =>
    label === ignored ? 0 : (inputs[2]?.data[label] ?? 1),
  );
  const losses = Array.from(labels, (label, i) => {
    if (label === ignored) return 0;
    const at = (Math.floor(i / inner) * classes + label) * inner + (i % inner);
    return -(weights[i] as number) * (logs.data[at] as number);
  });
  const { dtype, shape } = output(0);
  const reduction = attributes.string("reduction");
  if (reduction === "none") return fill(dtype, shape, (i) => losses[i] as number);
  const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
  return fill(dtype, shape, () => sum(losses) / (reduction === "mean" ? sum(weights) : 1));
}

export const softmaxCrossEntropyLoss: Kernel = (context) => {
  const x = context.input(0);
  const classes = x.shape[1] as number;
  const inner = elementCount(x.shape.slice(2));
  const line = (i: number) => {
    const start = Math.floor(i / (classes * inner)) * classes * inner + (i % inner);
    return Array.from({ length: classes }, (_, c) => x.data[start + c * inner] as number);
  };
  const logs = fill(x.dtype, x.shape, (i) => {
    const values = line(i);
    const top = Math.max(...values);
    const total = values.reduce((sum, value) => sum + Math.exp(value - top), 0);
    return (x.data[i] as number) - top - Math.log(total);
  });
  return [lossOf(context, logs), logs].slice(0, context.outputs.length);
};

export const negativeLogLikelihoodLoss: Kernel = (context) => [lossOf(context, context.input(0))];
