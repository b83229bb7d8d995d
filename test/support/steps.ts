/** Steps of a trainer on drawn samples, and the bits of its state. */
import { createHash } from "node:crypto";
import { elementCount, tensorFrom } from "../../src/tensor/index.ts";
import type { FillBatch, Trainer } from "../../src/train/index.ts";
import { randomNumbers } from "./random.ts";

/** Fills samples that depend on their position alone. */
export function fillingAt(
  ranges: readonly { readonly start: number; readonly end: number }[],
  classes: number,
): FillBatch {
  const positions = ranges.flatMap(({ start, end }) =>
    Array.from({ length: end - start }, (_, index) => start + index),
  );
  return (into) => {
    for (const [field, tensor] of Object.values(into).entries()) {
      const isClass = tensor.dtype === "int32";
      const width = elementCount(tensor.shape) / positions.length;
      const values = positions.flatMap((position) => {
        const numbers = randomNumbers(field * 1000 + position, width, [0, isClass ? classes : 1]);
        return isClass ? numbers.map(Math.floor) : numbers;
      });
      tensor.bytes.set(tensorFrom(tensor.dtype, tensor.shape, values).bytes);
    }
  };
}

/** Returns everything that a checkpoint holds, by name, as hashes. */
export async function bitsOf(trainer: Trainer): Promise<Record<string, string>> {
  const { parameters, slots, states } = await trainer.read();
  return Object.fromEntries(
    Object.entries({ ...parameters, ...slots, ...states }).map(([name, { bytes }]) => [
      name,
      createHash("sha256").update(bytes).digest("hex"),
    ]),
  );
}
