/** Spectra and windows of signals. */
import { realFromHalf, stft } from "../../functional/index.ts";
import { dtypeFromOnnx, tensorFrom } from "../../tensor/index.ts";
import { type Rule, type RuleContext, type RuleTable, rewrite } from "./rule.ts";

/** Before version 20, the axis was an attribute; the default was the dim after the batch. */
const axisToInput: Rule = ({ node, int, builder }) =>
  rewrite(node, {
    inputs: [node.inputs[0], node.inputs[1], builder.scalar("int64", int("axis", 1))],
    without: ["axis"],
  });

/** The default axis is made explicit, because our definition has no default. */
const lastAxis: Rule = ({ node, builder }) =>
  node.inputs[2] === undefined
    ? rewrite(node, { inputs: [node.inputs[0], node.inputs[1], builder.scalar("int64", -2)] })
    : undefined;

/**
 * A real signal from half of its spectrum: computed from the whole spectrum, which is the half and
 * its mirror image.
 */
const realSignal: Rule = (context) => {
  const { input, int } = context;
  if (int("onesided", 0) === 0 || int("inverse", 0) === 0) return undefined;
  const x = input(0);
  const axis = number(context, 2) ?? -2;
  const bins = x.shape.at(axis) ?? 0;
  if (x.shape.at(-1) !== 2) return context.fail("a spectrum needs real and imaginary parts");
  return [realFromHalf(x, axis, number(context, 1) ?? 2 * (bins - 1))];
};

/** Frames, multiplied by the window and transformed. */
const frames: Rule = (context) => {
  const { node, input, int, fail } = context;
  const [given, window] = [input(0), node.inputs[2]];
  const x =
    given.shape.length === 2
      ? context.one("Unsqueeze", [given, context.builder.ints([-1])])
      : given;
  const step = number(context, 1) ?? 0;
  const length = number(context, 3) ?? window?.shape[0];
  const time = x.shape[1] ?? 0;
  if (length === undefined) return fail("it has neither a window nor a length of frames");
  if (x.shape.length !== 3 || !(step >= 1) || !(length >= 1) || length > time) {
    return fail(`a signal of ${time} cannot be cut into frames of ${length}, ${step} apart`);
  }
  if (window !== undefined && (window.shape.length !== 1 || window.shape[0] !== length)) {
    return fail(`a window of ${window.shape.join(" by ")} does not fit frames of ${length}`);
  }
  const onesided = int("onesided", 1) === 1 && x.shape[2] === 1;
  return [stft(x, window, { step, length, onesided })];
};

function number(context: RuleContext, index: number): number | undefined {
  return context.node.inputs[index] === undefined ? undefined : context.numbers(index)[0];
}

/** Σ aᵢ cos(2πi n / N) with alternating signs. */
const window =
  (...coefficients: readonly number[]): Rule =>
  (context) => {
    const { int, builder, fail } = context;
    const size = number(context, 0) ?? 0;
    const dtype =
      dtypeFromOnnx(int("output_datatype", 1)) ?? fail("its output_datatype is not known");
    const turns = int("periodic", 1) === 1 ? size : size - 1;
    const values = Array.from({ length: size }, (_, n) =>
      coefficients.reduce(
        (sum, a, i) => sum + (-1) ** i * a * Math.cos((2 * Math.PI * i * n) / Math.max(1, turns)),
        0,
      ),
    );
    return [builder.constant(tensorFrom(dtype, [size], values))];
  };

/**
 * Triangular weights over the bins of a spectrum, evenly spaced in mels (O'Shaughnessy), as ONNX's
 * operator computes them.
 */
const melWeights: Rule = (context) => {
  const { int, builder, fail } = context;
  const [bands, length, rate, low, high] = [0, 1, 2, 3, 4].map(
    (at) => number(context, at) ?? 0,
  ) as [number, number, number, number, number];
  const dtype =
    dtypeFromOnnx(int("output_datatype", 1)) ?? fail("its output_datatype is not known");
  const mel = (hertz: number) => 2595 * Math.log10(1 + hertz / 700);
  const bins = Math.floor(length / 2) + 1;
  const edges = Array.from({ length: bands + 2 }, (_, i) => {
    const at = mel(low) + (i * (mel(high) - mel(low))) / (bands + 2);
    return Math.floor(((length + 1) * 700 * (10 ** (at / 2595) - 1)) / rate);
  });
  const weights = new Float64Array(bins * bands);
  for (let band = 0; band < bands; band++) {
    const [left, middle, right] = edges.slice(band, band + 3) as [number, number, number];
    const set = (bin: number, value: number) => {
      if (bin >= 0 && bin < bins) weights[bin * bands + band] = value;
    };
    if (left === middle) set(middle, 1);
    for (let bin = left; bin <= middle && left < middle; bin++)
      set(bin, (bin - left) / (middle - left));
    for (let bin = middle; bin < right; bin++) set(bin, (right - bin) / (right - middle));
  }
  return [builder.constant(tensorFrom(dtype, [bins, bands], weights))];
};

export const signalRules: RuleTable = {
  DFT: [{ below: 20, rule: axisToInput }, { rule: lastAxis }, { rule: realSignal }],
  STFT: [{ rule: frames }],
  HannWindow: [{ rule: window(0.5, 0.5) }],
  HammingWindow: [{ rule: window(25 / 46, 21 / 46) }],
  BlackmanWindow: [{ rule: window(0.42, 0.5, 0.08) }],
  MelWeightMatrix: [{ rule: melWeights }],
};
