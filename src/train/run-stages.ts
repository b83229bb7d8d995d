/** Runs stages of a step one after the other, and measures what a rank does for itself. */
import type { Instance, Stage, StageOptions } from "../program/index.ts";

export async function runStages(
  instance: Instance,
  stages: readonly Stage[],
  options: StageOptions = {},
): Promise<void> {
  for (const stage of stages) await instance.run(stage, options);
}

/**
 * Seconds that this rank computes alone: everything before the first collective, and segments beside collectives.
 * @param now milliseconds
 */
export async function runMeasured(
  instance: Instance,
  stages: readonly Stage[],
  { now, signal }: { readonly now: () => number; readonly signal?: AbortSignal | undefined },
): Promise<number> {
  let milliseconds = 0;
  const around = async (body: () => Promise<void>) => {
    const start = now();
    await body();
    milliseconds += now() - start;
  };
  const found = stages.findIndex(({ mode }) => mode === "collective" || mode === "tasks");
  const alone = found < 0 ? stages.length : found;
  await around(() => runStages(instance, stages.slice(0, alone), { signal }));
  await runStages(instance, stages.slice(alone), { signal, around });
  return milliseconds / 1000;
}
