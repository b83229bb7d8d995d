/**
 * Checks that a gradient graph that is cut into segments gives the same bits as the whole graph.
 * The check is needed because an engine may fuse nodes across a cut.
 */
import { createHash } from "node:crypto";
import type { Run, RunStage, Side } from "../program/index.ts";
import type { Instance } from "./instance.ts";

/**
 * Computes the first micro-batch both ways, from the batch that is loaded. Writes gradients only.
 */
export async function cutGivesSameBits(
  instance: Instance,
  { gradients, pieces = [] }: Side,
): Promise<boolean> {
  const run = gradients[0] as Run;
  const whole: RunStage = { name: "gradients whole", runs: [run], mode: "parallel" };
  await instance.run(whole);
  const expected = await digest(instance, run);
  for (const stage of pieces) await instance.run(stage);
  return (await digest(instance, run)) === expected;
}

async function digest(instance: Instance, { outputs }: Run): Promise<string> {
  const hash = createHash("sha256");
  for (const ref of Object.values(outputs)) {
    hash.update((await instance.device.download(instance.tensor(ref))).bytes);
  }
  return hash.digest("hex");
}
