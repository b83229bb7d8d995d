/** A small convolutional network for images, in the manner of LeNet (LeCun et al. 1998). */

import { LockstepError } from "../../errors.ts";
import { relu } from "../../functional/index.ts";
import { checkOptions, count, counts, imageSize, type OptionKinds, rate } from "../../options.ts";
import { defineModel } from "../define.ts";
import { heNormal } from "../initializers.ts";
import { conv2d, maxPool } from "../layers/convolution.ts";
import type { ModelDefinition } from "../model.ts";
import { perceptron } from "./mlp.ts";
import { classify, flatten } from "./task.ts";

export interface ConvnetOptions {
  /** The channels, height and width of an image. */
  readonly image: readonly [channels: number, height: number, width: number];
  readonly classes: number;
  /** The channels of each stage; a stage halves height and width. Default: [16, 32]. */
  readonly channels?: readonly number[];
  /** The width of the hidden layer before the classes. Default: 64. */
  readonly hidden?: number;
  /** The dropout rate before the classes. Default: 0. */
  readonly dropout?: number;
}

/** The schemas of the options of convnet. */
const CONVNET_OPTIONS: OptionKinds<ConvnetOptions> = {
  image: imageSize,
  classes: count,
  channels: counts.optional(),
  hidden: count.optional(),
  dropout: rate.optional(),
};

/**
 * Stages of a 3×3 convolution, ReLU and 2×2 max-pooling, then two linear layers. Batch fields:
 * `image` (batch, channels, height, width) and `label` int32 (batch). Outputs: `loss`, `logits`,
 * `accuracy`.
 */
export function convnet(options: ConvnetOptions): ModelDefinition {
  checkOptions("convnet", options, CONVNET_OPTIONS);
  const { image, classes, channels = [16, 32], hidden = 64 } = options;
  const [, height, width] = image;
  if (Math.min(height, width) < 2 ** channels.length) {
    throw new LockstepError(
      "INVALID_OPTION",
      `convnet: an image of ${height}×${width} cannot be halved ${channels.length} times.`,
      { hint: "Give fewer channels, one number for each stage, or larger images." },
    );
  }
  return defineModel("convnet", (m) => {
    let x = m.input("image", [m.batch, ...image]);
    for (const [index, outputs] of channels.entries()) {
      const stage = m.child("stages").child(index);
      const initializer = heNormal(9 * (x.shape[1] as number));
      const input = x;
      x = stage.within(() => {
        const conv = conv2d(stage, input, { outputs, kernel: 3, padding: "same", initializer });
        return maxPool(stage, relu(conv), { kernel: 2 });
      });
    }
    const settings = { dropout: options.dropout ?? 0 };
    return classify(m, perceptron(m.child("head"), flatten(x), [hidden, classes], settings));
  });
}
