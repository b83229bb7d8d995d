/**
 * Compares the model's loss, as bits per byte of held-out text, with a bigram model and gzip. For
 * byte-level text only.
 */
import { bigramBitsPerByte, type Dataset, gzipBitsPerByte } from "../data/index.ts";
import type { BitsPerByte } from "../telemetry/index.ts";

/** @param loss in nats per token on held-out text; a token is a byte */
export async function baselines(
  data: Dataset,
  loss: number | undefined,
): Promise<BitsPerByte | undefined> {
  const text = data.text;
  if (text?.validation === undefined || text.tokenizer.kind !== "bytes" || loss === undefined) {
    return undefined;
  }
  return {
    model: loss / Math.LN2,
    bigram: await bigramBitsPerByte(text.train, text.validation),
    gzip: await gzipBitsPerByte(text.validation),
  };
}
