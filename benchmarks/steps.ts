/** The steps that benchmarks of workers measure: a GPT on fixed tokens. */
import { gpt, type Model } from "../src/nn/index.ts";
import { adamw } from "../src/optimizer/index.ts";
import { tensorFrom } from "../src/tensor/index.ts";
import type { BatchFields, Trainer } from "../src/train/index.ts";
import type { GptSizes } from "./peers.ts";

/** What all of them train: with clipping and AdamW. */
export function trainedGpt(sizes: GptSizes, microBatches: number) {
  const { layers, width, heads, context, batch, vocabulary } = sizes;
  const definition = gpt({ layers, width, heads, context, vocabulary, tied: false });
  const model: Model = definition.build({ batch: batch / microBatches, mode: "train" });
  return { model, optimizer: adamw({}), microBatches, clip: 1, seed: 1 };
}

/** Makes steps of the whole batch, one after the other. Returns the seconds that each took. */
export async function timeSteps(
  trainer: Trainer,
  { batch, vocabulary }: GptSizes,
  count: number,
): Promise<number[]> {
  const fill = (into: BatchFields) => {
    for (const tensor of Object.values(into)) tensor.bytes.set(tokens(tensor.bytes, vocabulary));
  };
  const times: number[] = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    await trainer.step({ positions: { start: 0, end: batch }, fill });
    times.push((performance.now() - start) / 1000);
  }
  return times;
}

/** Fixed ids, which are the same for every run. */
function tokens({ byteLength }: Uint8Array, vocabulary: number): Uint8Array {
  const count = byteLength / 4;
  const ids = Array.from({ length: count }, (_, i) => ((i * 7919) % 100_003) % vocabulary);
  return tensorFrom("int32", [count], ids).bytes;
}
