/** Whether workers that are asked to leave may go: others must hold the state of the run first. */
import type { MembershipOptions, MembershipState } from "./types.ts";

/**
 * Says what to do about workers that are asked to leave but have not been let go. `go`: enough other
 * members hold the state. `wait`: others start, or can be started, that will. `stop`: without those
 * workers the run would have too few for good.
 */
export function answerToLeave(
  { workers, records }: MembershipState,
  asked: ReadonlySet<number>,
  { minWorkers, places }: MembershipOptions,
): "go" | "wait" | "stop" {
  const others = workers.filter(
    ({ id, status, draining }) =>
      !asked.has(id) && !draining && ["starting", "ready", "member"].includes(status),
  );
  const members = others.filter(({ status }) => status === "member");
  if (members.length >= minWorkers) return "go";
  const taken = new Set(workers.map(({ place }) => place));
  const free = places.filter(({ name }) => !taken.has(name) && records[name]?.closed !== true);
  return others.length + free.length >= minWorkers ? "wait" : "stop";
}
