/** What a verdict over a run means for whoever launched it. */
import { LockstepError } from "../errors.ts";
import type { Verdict } from "../membership/index.ts";
import type { TrainResult } from "../run/index.ts";
import type { WorkerHandle } from "./handle.ts";

/** Rejects for a run that failed. */
export async function endOf(
  { outcome, worker, text, requeue }: Verdict,
  all: readonly WorkerHandle[],
): Promise<TrainResult["outcome"]> {
  const outcomes = all.flatMap((handle) => handle.outcome ?? []);
  if (outcome === "finished") return outcomes.find((own) => own !== "followed") ?? "stopped";
  const fields = { requeue, ...(worker === undefined ? {} : { worker }) };
  throw new LockstepError("PEER_LOST", text, { fields });
}

/** What is said of workers that were killed and have not ended. */
export function leftText(all: readonly WorkerHandle[]): string {
  const left = all.filter(({ isOver }) => !isOver).map(({ number }) => number);
  return (
    `The processes of these workers were killed, and have not ended: ${left.join(", ")}. ` +
    "One that waits for a disk ends when the disk answers."
  );
}
