/** How a launcher goes on with a run that another one led before, whose workers have gone on. */
import type { MembershipEvent, MembershipState } from "../membership/index.ts";
import type { Standing } from "../protocol/index.ts";
import { tellFormed, tellRegroup } from "./forming.ts";
import type { WorkerHandle } from "./handle.ts";

/** What has happened to the workers of a stored state, by those that were found alive. */
export function sinceStored(
  { workers }: MembershipState,
  taken: ReadonlyMap<number, Standing>,
): MembershipEvent {
  const events = workers.flatMap(({ id }): MembershipEvent[] => {
    const found = taken.get(id);
    if (found === undefined) {
      const why = "it was not there any more when another launcher took over";
      return [
        { kind: "closed", worker: id, why },
        { kind: "refused", worker: id },
      ];
    }
    const { generation, step } = found;
    return found.isReady ? [{ kind: "ready", worker: id, generation, step }] : [];
  });
  return { kind: "several", events: [{ kind: "restored" }, ...events] };
}

/** Does what the launcher before may have decided and not have done any more. */
export function doAgain(
  { phase, generation, workers: known }: MembershipState,
  workers: ReadonlyMap<number, WorkerHandle>,
  hasBegun: boolean,
): void {
  for (const { id, status } of known) {
    if (status === "lost" || status === "dismissed") workers.get(id)?.kill();
  }
  if (phase === "gathering" || phase === "ended" || generation.number === 0) return;
  // A worker ignores a generation that it knows.
  tellFormed(generation, workers, hasBegun);
  if (phase === "running") return;
  const when = phase === "pausing" ? "after-step" : "now";
  const asked = generation.members.map(({ worker }) => worker);
  tellRegroup({ generation: generation.number, workers: asked, when }, workers);
}
