import type { normalization } from "../ops/normalization/index.ts";
import { elementCount, normalizeDim, stridesOf } from "../tensor/index.ts";
import { attention, rotaryEmbedding } from "./attention.ts";
import { broadcastReader, type Kernel, type KernelContext } from "./kernel.ts";
import { negativeLogLikelihoodLoss, softmaxCrossEntropyLoss } from "./label-loss.ts";
import { ringAttention, ringAttentionGradient } from "./ring-attention.ts";
import type { ReferenceTensor } from "./tensor.ts";

/** Applies `compute` to every line along `axis`. */
function alongAxis(compute: (line: readonly number[]) => readonly number[]): Kernel {
  return ({ input, output, attributes }) => {
    const x = input(0);
    const axis = normalizeDim(attributes.number("axis"), x.shape.length) as number;
    const size = x.shape[axis] as number;
    const stride = stridesOf(x.shape)[axis] as number;
    const data = new Float64Array(x.data.length);
    for (let start = 0; start < data.length; start++) {
      if (Math.floor(start / stride) % size !== 0) continue;
      const at = (i: number) => start + i * stride;
      const line = Array.from({ length: size }, (_, i) => x.data[at(i)] as number);
      for (const [i, value] of compute(line).entries()) data[at(i)] = value;
    }
    return [{ ...output(0), data }];
  };
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
const mean = (values: readonly number[]): number => sum(values) / values.length;

function logSoftmax(line: readonly number[]): number[] {
  const top = Math.max(...line);
  const total = top + Math.log(sum(line.map((value) => Math.exp(value - top))));
  return line.map((value) => value - total);
}

/** The rows over the dims from `axis` on. */
function rowsFrom({ input, attributes }: KernelContext): number[][] {
  const { data, shape } = input(0);
  const axis = normalizeDim(attributes.number("axis"), shape.length) as number;
  const size = elementCount(shape.slice(axis));
  return Array.from({ length: size === 0 ? 0 : data.length / size }, (_, row) =>
    Array.from(data.subarray(row * size, (row + 1) * size)),
  );
}

/** Applies scale and shift, broadcast to the input's shape. */
function affine(context: KernelContext, normal: readonly number[]): ReferenceTensor {
  const type = context.output(0);
  const scale = broadcastReader(context.input(1), type.shape);
  const bias = context.inputs[2];
  const shift = bias === undefined ? () => 0 : broadcastReader(bias, type.shape);
  return { ...type, data: Float64Array.from(normal, (n, i) => n * scale(i) + shift(i)) };
}

const layerNormalization: Kernel = (context) => {
  const epsilon = context.attributes.number("epsilon");
  const rows = rowsFrom(context);
  const means = rows.map(mean);
  const inverses = rows.map((row, i) => {
    const center = means[i] as number;
    return 1 / Math.sqrt(mean(row.map((value) => (value - center) ** 2)) + epsilon);
  });
  const normal = rows.flatMap((row, i) =>
    row.map((value) => (value - (means[i] as number)) * (inverses[i] as number)),
  );
  const statistics = [means, inverses].map((data, i) => {
    const type = context.outputs[i + 1];
    return type && { ...type, data: Float64Array.from(data) };
  });
  return [affine(context, normal), ...statistics.filter((tensor) => tensor !== undefined)];
};

const rmsNormalization: Kernel = (context) => {
  const epsilon = context.attributes.number("epsilon");
  const normal = rowsFrom(context).flatMap((row) => {
    const inverse = 1 / Math.sqrt(mean(row.map((value) => value * value)) + epsilon);
    return row.map((value) => value * inverse);
  });
  return [affine(context, normal)];
};

const batchNormalization: Kernel = ({ input, outputs, output, attributes }) => {
  const x = input(0);
  const channels = x.shape[1] as number;
  const inner = elementCount(x.shape.slice(2));
  const channelOf = (i: number) => Math.floor(i / inner) % channels;
  const training = attributes.number("training_mode") === 1;
  const [oldMean, oldVariance] = [input(3).data, input(4).data];
  const values = Array.from({ length: channels }, (_, c) =>
    Array.from(x.data).filter((_value, i) => channelOf(i) === c),
  );
  const means = training ? values.map(mean) : Array.from(oldMean);
  const variances = training
    ? values.map((list, c) => mean(list.map((value) => (value - (means[c] as number)) ** 2)))
    : Array.from(oldVariance);
  const epsilon = attributes.number("epsilon");
  const data = x.data.map((value, i) => {
    const c = channelOf(i);
    const deviation = Math.sqrt((variances[c] as number) + epsilon);
    const normal = (value - (means[c] as number)) / deviation;
    return normal * (input(1).data[c] as number) + (input(2).data[c] as number);
  });
  const momentum = attributes.number("momentum");
  const running = (old: Float64Array, batch: readonly number[]) =>
    old.map((value, c) => value * momentum + (batch[c] as number) * (1 - momentum));
  const statistics = [running(oldMean, means), running(oldVariance, variances)];
  return [
    { ...output(0), data },
    ...outputs.slice(1).map((type, i) => ({ ...type, data: statistics[i] as Float64Array })),
  ];
};

/**
 * Normalizes by statistics over groups of channels, with scale and bias for each channel; `groups`
 * gets the number of channels.
 */
function groupNormalization(
  groupsOf: (context: KernelContext, channels: number) => number,
): Kernel {
  return (context) => {
    const { data, shape } = context.input(0);
    const channels = shape[1] as number;
    const inner = elementCount(shape.slice(2));
    const size = (channels * inner) / groupsOf(context, channels);
    const epsilon = context.attributes.number("epsilon");
    const normal = Array.from({ length: data.length / size }, (_, group) => {
      const row = Array.from(data.subarray(group * size, (group + 1) * size));
      const center = mean(row);
      const variance = mean(row.map((value) => (value - center) ** 2));
      return row.map((value) => (value - center) / Math.sqrt(variance + epsilon));
    }).flat();
    const channelOf = (i: number) => Math.floor(i / inner) % channels;
    const [scale, bias] = [context.input(1).data, context.input(2).data];
    const result = normal.map(
      (value, i) => value * (scale[channelOf(i)] as number) + (bias[channelOf(i)] as number),
    );
    return [{ ...context.output(0), data: Float64Array.from(result) }];
  };
}

const lpNormalization: Kernel = (context) => {
  const p = context.attributes.number("p");
  return alongAxis((line) => {
    const norm = sum(line.map((value) => Math.abs(value) ** p)) ** (1 / p);
    return line.map((value) => (norm === 0 ? 0 : value / norm));
  })(context);
};

const lrn: Kernel = ({ input, output, attributes }) => {
  const { data, shape } = input(0);
  const channels = shape[1] as number;
  const inner = elementCount(shape.slice(2));
  const size = attributes.number("size");
  const before = Math.floor((size - 1) / 2);
  const result = data.map((value, i) => {
    const channel = Math.floor(i / inner) % channels;
    let squares = 0;
    for (let c = channel - before; c < channel - before + size; c++) {
      if (c >= 0 && c < channels) squares += (data[i + (c - channel) * inner] as number) ** 2;
    }
    const base = attributes.number("bias") + (attributes.number("alpha") / size) * squares;
    return value / base ** attributes.number("beta");
  });
  return [{ ...output(0), data: result }];
};

export const normalizationKernels: Record<keyof typeof normalization, Kernel> = {
  Attention: attention,
  BatchNormalization: batchNormalization,
  GroupNormalization: groupNormalization(({ attributes }) => attributes.number("num_groups")),
  Hardmax: alongAxis((line) => {
    const top = line.indexOf(Math.max(...line));
    return line.map((_, i) => Number(i === top));
  }),
  InstanceNormalization: groupNormalization((_, channels) => channels),
  LayerNormalization: layerNormalization,
  LogSoftmax: alongAxis(logSoftmax),
  LpNormalization: lpNormalization,
  LRN: lrn,
  "lockstep::RingAttention": ringAttention,
  "lockstep::RingAttentionGradient": ringAttentionGradient,
  NegativeLogLikelihoodLoss: negativeLogLikelihoodLoss,
  RMSNormalization: rmsNormalization,
  RotaryEmbedding: rotaryEmbedding,
  Softmax: alongAxis((line) => logSoftmax(line).map(Math.exp)),
  SoftmaxCrossEntropyLoss: softmaxCrossEntropyLoss,
};
