/** Workers that come by themselves. */
import { FORGET_MS } from "./bounds.ts";
import { type Draft, enter, fence, lose, setRecord, tell } from "./draft.ts";
import type { Action } from "./types.ts";
import { counted } from "./words.ts";

/** Admits a worker, unless its place is set aside, or too many take part already. */
export function join(draft: Draft, place: string, node: string): void {
  const { state, options, actions } = draft;
  const refuse = (retryMs: number, why: string) => {
    const refusal: Action = { kind: "refuse", place, retryMs };
    actions.push(refusal);
    tell(draft, "aside", `A worker of host ${node} (place ${place}) is not admitted: ${why}.`);
  };
  if (state.phase === "ended") return refuse(FORGET_MS, "the run has ended");
  const isTaken = draft.roster.isTaken(place);
  for (const old of isTaken ? state.workers.filter((worker) => worker.place === place) : []) {
    if (old.status === "dismissed" || old.status === "done") fence(draft, old);
    else lose(draft, old, { kind: "lost", cause: "another worker joins in its place" });
  }
  const record = state.records[place];
  const rest = (record?.restUntil ?? 0) - state.time;
  if (rest > 0)
    return refuse(rest, `${counted(record?.losses ?? 0, "worker")} of it were lost in a row`);
  if (record?.closed) setRecord(draft, place, { ...record, closed: false });
  const most = 2 * options.maxWorkers + options.places.length;
  if (state.workers.length >= most) return refuse(FORGET_MS, `${most} workers take part already`);
  enter(draft, "admit", place, node);
}
