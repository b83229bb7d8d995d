/** The sentences in which the leader of a run says what it decided, and why. */
import type { Generation, MembershipEvent, MembershipState, Place, WorkerState } from "./types.ts";

export function named({ id, node }: Pick<WorkerState, "id" | "node">): string {
  return `worker ${id} (host ${node})`;
}

/** "1 worker", "2 workers" */
export function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

/** "1", "1 and 2", "1, 2 and 3"; of many only the first are listed. */
function listed(ids: readonly number[]): string {
  const shown = ids.length > 12 ? ids.slice(0, 10) : ids;
  const all = [...shown.map(String), ...(shown === ids ? [] : [`${ids.length - 10} more`])];
  return all.length === 1 ? `${all[0]}` : `${all.slice(0, -1).join(", ")} and ${all.at(-1)}`;
}

export function workers(ids: readonly number[]): string {
  return `${ids.length === 1 ? "worker" : "workers"} ${listed(ids)}`;
}

export function span(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 120_000) return `${Number((ms / 1000).toFixed(1))} s`;
  return `${Math.round(ms / 60_000)} min`;
}

/** "it has waited for 15 s to read \"/data/a.txt\"", also as the end of a sentence about it */
export function fileText({ doing, file }: WorkerState, ms: number): string {
  const which = file === undefined ? "a file" : `"${file}"`;
  if (doing !== "blocked") {
    return `has waited for ${span(ms)} to ${doing === "reading" ? "read" : "write"} ${which}`;
  }
  const about = file === undefined ? "" : ` about ${which}`;
  return `has waited for a disk for ${span(ms)}: a call to the system${about} does not return`;
}

export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** "Worker 3 (host b) was lost at step 812, found in 40 ms: it was killed by SIGKILL." */
export function lostText(state: MembershipState, worker: WorkerState, cause: string): string {
  const where = worker.status === "member" ? ` at step ${state.committed + 1}` : "";
  const found = span(state.time - worker.heard);
  // An error of the worker ends with its own full stop.
  return capital(
    `${named(worker)} was lost${where}, found in ${found}: ${cause.replace(/\.$/, "")}.`,
  );
}

export function wokenText(worker: WorkerState, silence: number): string {
  return capital(
    `${named(worker)} showed no sign of life for ${span(silence)}, and its process is stopped by a signal: ` +
      `it is continued (SIGCONT), because no other worker that runs holds the state of step ${worker.step}.`,
  );
}

export function causeOfEnd({
  status,
  signal,
}: Extract<MembershipEvent, { readonly kind: "ended" }>): string {
  if (signal !== null) return `it was killed by ${signal}`;
  return `its process ended with status ${status ?? "unknown"}`;
}

export function restText({ name, node }: Place, losses: number, rest: number): string {
  const times = losses === 1 ? "its worker was lost" : `${losses} workers were lost there in a row`;
  return `Place ${name} (host ${node}) is set aside for ${span(rest)}, because ${times} before it was of use.`;
}

/** "Generation 5 begins after step 811 with workers 1 and 2; what worker 3 computed is given to them." */
export function generationText(
  { number, members, step, holders }: Generation,
  { gone, committed, furthest }: MembershipState,
): string {
  const ids = members.map(({ worker }) => worker);
  const text = `Generation ${number} begins after step ${step} with ${workers(ids)}`;
  if (holders.length === 0 && furthest > 0 && number > 1) {
    const from = step === 0 ? "its beginning" : `its checkpoint of step ${step}`;
    return `${text}: no worker that lives holds the state of the run, so it goes on from ${from}.`;
  }
  if (step < committed) {
    const repeated =
      step + 1 === committed ? `step ${committed} is` : `steps ${step + 1} to ${committed} are`;
    return `${text}: no worker that lives holds the state after step ${committed}, so ${repeated} computed again.`;
  }
  if (gone.length === 0) return `${text}.`;
  return `${text}; what ${workers(gone)} computed is given to ${workers(ids)}.`;
}
