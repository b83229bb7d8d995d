/** Residual networks for images (He et al. 2016), with basic blocks. */

import { LockstepError } from "../../errors.ts";
import { add, relu } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { checkOptions, choice, count, counts, imageSize, type OptionKinds } from "../../options.ts";
import { defineModel } from "../define.ts";
import { heNormal } from "../initializers.ts";
import { conv2d, globalAveragePool, maxPool } from "../layers/convolution.ts";
import { linear } from "../layers/linear.ts";
import { batchNorm } from "../layers/normalization.ts";
import type { ModelDefinition } from "../model.ts";
import type { Scope } from "../scope.ts";
import { classify } from "./task.ts";

export interface ResnetOptions {
  /** The channels, height and width of an image. */
  readonly image: readonly [channels: number, height: number, width: number];
  readonly classes: number;
  /**
   * The number of blocks of each stage; from the second stage on, the first block halves height and
   * width. Default: [2, 2, 2, 2] (ResNet-18).
   */
  readonly blocks?: readonly number[];
  /** The channels of each stage. Default: 64, doubled at each stage. */
  readonly channels?: readonly number[];
  /**
   * The first layers: `large`: a 7×7 convolution of stride 2 and max-pooling, for 224×224; `small`:
   * a 3×3 convolution, for images of about 32×32. Default: `large`.
   */
  readonly stem?: "large" | "small";
}

/** The schemas of the options of resnet. */
const RESNET_OPTIONS: OptionKinds<ResnetOptions> = {
  image: imageSize,
  classes: count,
  blocks: counts.optional(),
  channels: counts.optional(),
  stem: choice("large", "small").optional(),
};

/**
 * Batch fields: `image` (batch, channels, height, width) and `label` int32 (batch). Outputs:
 * `loss`, `logits`, `accuracy`. Names follow torchvision's: `layer1.0.conv1.weight`. States: the
 * running statistics of `batchNorm`.
 */
export function resnet(options: ResnetOptions): ModelDefinition {
  checkOptions("resnet", options, RESNET_OPTIONS);
  const { image, classes, blocks = [2, 2, 2, 2], stem = "large" } = options;
  const { channels = blocks.map((_, stage) => 64 * 2 ** stage) } = options;
  if (channels.length !== blocks.length || blocks.length === 0) {
    throw new LockstepError(
      "INVALID_OPTION",
      `resnet: ${blocks.length} stages of blocks, but ${channels.length} of channels.`,
      { hint: "Give one number of blocks and one of channels for each stage." },
    );
  }
  return defineModel("resnet", (m) => {
    let x = stemOf(m, m.input("image", [m.batch, ...image]), channels[0] as number, stem);
    for (const [stage, count] of blocks.entries()) {
      for (let block = 0; block < count; block++) {
        const scope = m.child(`layer${stage + 1}`).child(block);
        const stride = stage > 0 && block === 0 ? 2 : 1;
        x = basicBlock(scope, x, channels[stage] as number, stride);
      }
    }
    return classify(m, linear(m.child("fc"), globalAveragePool(m, x), { outputs: classes }));
  });
}

function stemOf(m: Scope, x: Value, outputs: number, stem: "large" | "small"): Value {
  const large = stem === "large";
  const first = convolve(m.child("conv1"), x, outputs, large ? 7 : 3, large ? 2 : 1);
  const start = m.within(() => relu(batchNorm(m.child("bn1"), first)));
  return large ? maxPool(m, start, { kernel: 3, stride: 2, padding: 1 }) : start;
}

/** Two 3×3 convolutions with a shortcut, which is a 1×1 convolution if size or channels change. */
function basicBlock(scope: Scope, x: Value, outputs: number, stride: number): Value {
  return scope.within(() => {
    const first = convolve(scope.child("conv1"), x, outputs, 3, stride);
    const middle = relu(batchNorm(scope.child("bn1"), first));
    const second = convolve(scope.child("conv2"), middle, outputs, 3, 1);
    const change = batchNorm(scope.child("bn2"), second);
    if (stride === 1 && x.shape[1] === outputs) return relu(add(change, x));
    const down = scope.child("downsample");
    const shortcut = convolve(down.child(0), x, outputs, 1, stride);
    return relu(add(change, batchNorm(down.child(1), shortcut)));
  });
}

function convolve(scope: Scope, x: Value, outputs: number, kernel: number, stride: number): Value {
  const initializer = heNormal(outputs * kernel * kernel);
  const padding = (kernel - 1) / 2;
  return conv2d(scope, x, { outputs, kernel, stride, padding, bias: false, initializer });
}
