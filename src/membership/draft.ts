/**
 * A state while a decision is made of it, and the few changes that decisions consist of. Each says
 * why it happens.
 */
import { FORGET_MS, restAfter, withStep } from "./bounds.ts";
import type {
  Action,
  MembershipOptions,
  MembershipState,
  Mishap,
  Topic,
  Verdict,
  WorkerState,
} from "./types.ts";
import { capital, lostText, named, restText, workers } from "./words.ts";

export interface Draft {
  readonly state: MembershipState;
  readonly options: MembershipOptions;
  readonly actions: Action[];
  readonly byId: ReadonlyMap<number, WorkerState>;
}

/** Copies what decisions change, so that the given state stays as it was. */
export function draftOf(before: MembershipState, options: MembershipOptions): Draft {
  const state = {
    ...before,
    workers: before.workers.map((worker) => ({ ...worker })),
    records: { ...before.records },
    done: [...before.done],
    mishaps: [...before.mishaps],
    reports: [...before.reports],
    gone: [...before.gone],
  };
  const byId = new Map(state.workers.map((worker) => [worker.id, worker]));
  return { state, options, actions: [], byId };
}

export function tell({ actions }: Draft, about: Topic, text: string, worker?: number): void {
  actions.push({ kind: "tell", about, text, ...(worker === undefined ? {} : { worker }) });
}

export function withStatus(
  { state }: Draft,
  status: WorkerState["status"],
): readonly WorkerState[] {
  return state.workers.filter((worker) => worker.status === status);
}

/** Workers that may enter the next generation. */
export function candidates(draft: Draft): readonly WorkerState[] {
  return withStatus(draft, "ready");
}

export function setStatus(
  { state }: Draft,
  worker: WorkerState,
  status: WorkerState["status"],
): void {
  worker.status = status;
  worker.since = state.time;
  worker.waiting = false;
}

export function enter(draft: Draft, kind: "start" | "admit", place: string, node: string): void {
  const { state } = draft;
  const worker: WorkerState = {
    id: state.nextWorker++,
    place,
    node,
    status: "starting",
    since: state.time,
    heard: state.time,
    waiting: false,
    stopped: false,
    draining: false,
    step: 0,
    steps: 0,
    kills: 0,
  };
  state.workers.push(worker);
  (draft.byId as Map<number, WorkerState>).set(worker.id, worker);
  draft.actions.push({ kind, worker: worker.id, place, node });
  const did = kind === "start" ? "is started" : "joins";
  const text = capital(`${named(worker)} ${did} at place ${place}.`);
  tell(draft, kind === "start" ? "started" : "joined", text, worker.id);
}

export function remove({ state, byId }: Draft, { id }: WorkerState): void {
  state.workers = state.workers.filter((worker) => worker.id !== id);
  (byId as Map<number, WorkerState>).delete(id);
}

/** Kills a worker, and waits for its end before any generation is formed (fencing). */
export function fence(draft: Draft, worker: WorkerState): void {
  setStatus(draft, worker, "lost");
  worker.kills += 1;
  draft.actions.push({ kind: "kill", worker: worker.id });
}

export interface Loss {
  readonly kind: Mishap["kind"];
  readonly cause: string;
  readonly code?: string;
  /** Whether its process is known to be dead. */
  readonly dead?: boolean;
}

/** Gives up a worker that was of use or was to be. Its generation breaks, if it was in one. */
export function lose(draft: Draft, worker: WorkerState, { kind, cause, code, dead }: Loss): void {
  const { state } = draft;
  if (worker.status === "lost") return;
  tell(draft, "lost", lostText(state, worker, cause), worker.id);
  const wasMember = worker.status === "member";
  const generation = wasMember ? state.generation.number : undefined;
  state.mishaps.push({ worker: worker.id, kind, code, text: cause, generation });
  const rank = state.generation.members.findIndex((member) => member.worker === worker.id);
  if (wasMember) state.gone.push({ worker: worker.id, samples: state.samples[rank] });
  setAside(draft, worker, kind === "own");
  if (dead) remove(draft, worker);
  else fence(draft, worker);
  if (wasMember) breakUp(draft, undefined);
  else state.setbacks += 1;
}

/** Lets the place of a lost worker rest; the longer, the more often it lost one for nothing. */
function setAside(draft: Draft, worker: WorkerState, own: boolean): void {
  const { state } = draft;
  const { place, node } = worker;
  const { losses: before = 0, closed = false } = state.records[place] ?? {};
  const { losses, rest } = restAfter(before, worker, own);
  for (const [name, record] of Object.entries(state.records)) {
    const isOld = !record.closed && record.restUntil + FORGET_MS < state.time;
    if (isOld) delete state.records[name];
  }
  state.records[place] = { losses, closed, restUntil: state.time + rest };
  if (rest > 0 && !closed) tell(draft, "aside", restText({ name: place, node }, losses, rest));
}

export function close({ state }: Draft, { place }: WorkerState): void {
  const { losses, restUntil } = state.records[place] ?? { losses: 0, restUntil: state.time };
  state.records[place] = { losses, restUntil, closed: true };
}

function enterPhase({ state }: Draft, phase: MembershipState["phase"]): void {
  state.phase = phase;
  state.since = state.time;
  state.remindAt = undefined;
}

function regroup(draft: Draft, when: "after-step" | "now"): void {
  const { number } = draft.state.generation;
  const members = withStatus(draft, "member").map(({ id }) => id);
  draft.actions.push({ kind: "regroup", generation: number, workers: members, when });
}

/**
 * The generation cannot commit any more: its members leave it at once.
 * @param why a sentence, unless it was told already
 */
export function breakUp(draft: Draft, why: string | undefined): void {
  const { state } = draft;
  if (state.phase !== "running" && state.phase !== "pausing") return;
  if (why !== undefined) tell(draft, "regroup", why);
  state.setbacks += 1;
  enterPhase(draft, "breaking");
  regroup(draft, "now");
}

/** Members leave the generation after their present step, which they commit. */
export function pause(draft: Draft, why: string): void {
  if (draft.state.phase !== "running") return;
  tell(draft, "regroup", why);
  enterPhase(draft, "pausing");
  regroup(draft, "after-step");
}

/** Every member has left its generation, or is lost. */
export function gather(draft: Draft): void {
  enterPhase(draft, "gathering");
}

/** A new generation with these members begins. */
export function begin(draft: Draft, members: readonly WorkerState[], text: string): void {
  const { state } = draft;
  tell(draft, "generation", text);
  const { generation } = state;
  for (const worker of members) setStatus(draft, worker, "member");
  const spares = candidates(draft).map(({ id }) => id);
  draft.actions.push({ kind: "form", generation, spares });
  if (spares.length > 0) {
    const many = spares.length > 1;
    tell(draft, "spare", `${capital(workers(spares))} ${many ? "stand" : "stands"} by.`);
  }
  enterPhase(draft, "running");
  state.progressAt = state.time;
  state.hasCommitted = false;
  [state.committed, state.done, state.samples, state.gone] = [generation.step, [], [], []];
}

/** Takes note that the present generation committed a step. */
export function commit(draft: Draft, step: number, samples: readonly number[] | undefined): void {
  const { state } = draft;
  if (samples !== undefined) state.samples = samples;
  if (step <= state.committed) return;
  if (state.hasCommitted) {
    const took = (state.time - state.progressAt) / (step - state.committed);
    state.pace = withStep(state.pace, took);
  }
  for (const worker of withStatus(draft, "member")) {
    [worker.step, worker.steps] = [step, worker.steps + step - state.committed];
  }
  [state.committed, state.progressAt, state.hasCommitted] = [step, state.time, true];
  if (step <= state.furthest) return;
  state.furthest = step;
  [state.mishaps, state.reports, state.setbacks] = [[], [], 0];
}

export function dismiss(draft: Draft, worker: WorkerState): void {
  setStatus(draft, worker, "dismissed");
  draft.actions.push({ kind: "dismiss", worker: worker.id });
  tell(draft, "left", capital(`${named(worker)} may go.`), worker.id);
}

export function end(draft: Draft, verdict: Verdict): void {
  tell(draft, "ended", verdict.text);
  draft.actions.push({ kind: "end", verdict });
  enterPhase(draft, "ended");
}
