/** Whether workers that are asked to leave may go: others must hold the state of the run first. */
import { leastOf } from "./bounds.ts";
import type { MembershipOptions, MembershipState } from "./types.ts";

/**
 * Says what to do about workers that are asked to leave but have not been let go. `go`: enough other
 * members hold the state. `wait`: others start, or can be started, that will. `stop`: without those
 * workers the run would have too few for good.
 */
export function answerToLeave(
  state: MembershipState,
  asked: ReadonlySet<number>,
  options: MembershipOptions,
): "go" | "wait" | "stop" {
  const { workers, records } = state;
  const { places } = options;
  const least = leastOf(state, options);
  const others = workers.filter(
    ({ id, status, draining }) =>
      !asked.has(id) && !draining && ["starting", "ready", "member"].includes(status),
  );
  const members = others.filter(({ status }) => status === "member");
  if (members.length >= least) return "go";
  const taken = new Set(workers.map(({ place }) => place));
  const free = places.filter(({ name }) => !taken.has(name) && records[name]?.closed !== true);
  return others.length + free.length >= least ? "wait" : "stop";
}
