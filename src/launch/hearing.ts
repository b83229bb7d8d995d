/** What the membership of a run is told of what workers say. */
import type { MembershipEvent, MembershipState } from "../membership/index.ts";
import type { OtherMessage, WorkerEnd, WorkerHandle } from "./handle.ts";
import type { Sign } from "./signs.ts";

export function heardOf(
  { generation: { number, members } }: MembershipState,
  worker: number,
  message: OtherMessage,
): MembershipEvent[] {
  switch (message.kind) {
    case "ready": {
      const { kind, generation, step, short } = message;
      return [{ kind, generation, step, worker, short }];
    }
    case "lost": {
      const { generation, rank } = message;
      const lost = members[rank]?.worker;
      if (lost === undefined || generation !== number) return [];
      return [{ kind: "reported", by: worker, worker: lost, generation }];
    }
    case "event": {
      const { event } = message;
      if (event.type === "checkpoint") return [{ kind: "saved", step: event.step }];
      if (event.type === "started") return [{ kind: "began", step: event.firstStep }];
      if (event.type !== "step") return [];
      return [{ kind: "committed", worker, generation: number, step: event.step }];
    }
    default:
      return [];
  }
}

export function signsOf(alive: readonly Sign[], stopped: readonly number[]): MembershipEvent[] {
  const still = stopped.map((worker) => ({ kind: "stopped", worker }) as const);
  return alive.length > 0 ? [{ kind: "beats", beats: alive }, ...still] : still;
}

/** @param stops whether the run was asked to stop */
export function endedOf(
  { number: worker, outcome }: WorkerHandle,
  { status, signal, refused }: WorkerEnd,
  stops: boolean,
): MembershipEvent[] {
  const events: MembershipEvent[] = [];
  if (outcome !== undefined) events.push({ kind: "done", worker });
  // It has stopped before it took part.
  if (stops && outcome === "stopped") events.push({ kind: "drain", worker, why: "the run stops" });
  if (refused === undefined) return [...events, { kind: "ended", worker, status, signal }];
  return [...events, { kind: "refused", worker }];
}
