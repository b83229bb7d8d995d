/** The small models of the tests in which ranks are lost, meet again and change. */
import { gpt, resnet } from "../../src/nn/index.ts";
import type { Trainer } from "../../src/train/index.ts";
import { fillingAt } from "./steps.ts";

export const CLASSES = 10;

/** With dropout, so that a sample that is computed at another place would show. */
export const GPT = gpt({
  layers: 1,
  width: 16,
  heads: 2,
  context: 4,
  vocabulary: CLASSES,
  dropout: 0.1,
});

/** With running statistics, which are state beside the parameters. */
export const CONVOLUTION = resnet({
  image: [1, 8, 8],
  classes: CLASSES,
  blocks: [1],
  channels: [4],
  stem: "small",
});

/** Makes the next step of a trainer, with this many samples. */
export async function stepOf(trainer: Trainer, samples: number): Promise<void> {
  const at = trainer.steps;
  const positions = { start: at * samples, end: (at + 1) * samples };
  await trainer.step({ positions, fill: fillingAt(trainer.ownPositions(positions), CLASSES) });
}
