/**
 * Detects batches that contain no label that counts, for losses that are divided by several counts
 * of the whole batch.
 */
import type { Instance } from "../execute/index.ts";
import type { StepProgram, Summary } from "../program/index.ts";

/**
 * Whether all counts that the loss is divided by are 0. A loss of 0/0 is computed again with counts
 * of 1: if all is finite then, nothing else is wrong with it. All ranks see the same numbers and
 * decide the same.
 * @param again computes the totals and the step once more
 */
export async function holdsNothing(
  instance: Instance,
  { counted, summary }: Pick<StepProgram, "counted" | "summary">,
  { loss, gradientNorm }: Summary,
  again: () => Promise<void>,
): Promise<boolean> {
  if (counted === undefined) return false;
  const [none] = await instance.read(counted.none);
  if (none === 0) return false;
  const isDivided = Number.isNaN(loss) || (Number.isFinite(loss) && Number.isNaN(gradientNorm));
  if (!isDivided) return gradientNorm === 0;
  try {
    instance.write(counted.instead, [1]);
    await again();
    const [otherLoss, otherNorm] = await instance.read(summary);
    return Number.isFinite(otherLoss) && Number.isFinite(otherNorm);
  } finally {
    instance.write(counted.instead, [0]);
  }
}
