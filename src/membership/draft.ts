/**
 * A state while a decision is made of it, and the few changes that decisions consist of. Each says
 * why it happens.
 */
import { assert } from "../errors.ts";
import { FORGET_MS, restAfter, withStep } from "./bounds.ts";
import { keepRoster, type Roster, takeRoster } from "./roster.ts";
import type {
  Action,
  MembershipOptions,
  MembershipState,
  Mishap,
  PlaceRecord,
  Topic,
  Verdict,
  WorkerState,
} from "./types.ts";
import { capital, lostText, named, restText, wokenText, workers } from "./words.ts";

export interface Draft {
  readonly state: MembershipState;
  readonly options: MembershipOptions;
  readonly actions: Action[];
  readonly roster: Roster;
  /** The workers whose waits are new. */
  readonly touched: Set<number>;
  /** The workers of this draft, once they are not those of the given state any more. */
  own: WorkerState[] | undefined;
}

/** What decisions change is copied when it is changed, so that the given state stays as it was. */
export function draftOf(before: MembershipState, options: MembershipOptions): Draft {
  const roster = takeRoster(before.workers, options.places);
  const state = { ...before };
  return { state, options, actions: [], roster, touched: new Set(), own: undefined };
}

/** The state that was made of a draft; the draft is of no use any more. */
export function finish({ state, roster }: Draft): MembershipState {
  keepRoster(state.workers, roster);
  return state;
}

function ownWorkers(draft: Draft): WorkerState[] {
  draft.own ??= [...draft.state.workers];
  draft.state.workers = draft.own;
  return draft.own;
}

/** Where the worker is in the list, or where it would have to be. */
function placeIn(workers: readonly WorkerState[], id: number): number {
  let [low, high] = [0, workers.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((workers[middle] as WorkerState).id < id) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function find({ state }: Draft, id: number): WorkerState | undefined {
  const worker = state.workers[placeIn(state.workers, id)];
  return worker?.id === id ? worker : undefined;
}

type Changeable = { -readonly [Name in keyof WorkerState]: WorkerState[Name] };

/**
 * Replaces a worker of the draft by a copy of it that `edit` has changed, and returns that. (An
 * object of new values would be spread over the old ones: three times as slow.)
 */
export function change(draft: Draft, id: number, edit: (worker: Changeable) => void): WorkerState {
  const workers = ownWorkers(draft);
  const index = placeIn(workers, id);
  const before = workers[index] as WorkerState;
  assert(before.id === id, "a worker that changes takes part");
  const after = { ...before };
  edit(after);
  workers[index] = after;
  draft.roster.change(before, after);
  return after;
}

export function tell({ actions }: Draft, about: Topic, text: string, worker?: number): void {
  actions.push({ kind: "tell", about, text, ...(worker === undefined ? {} : { worker }) });
}

export function withStatus(
  { state, roster }: Draft,
  status: WorkerState["status"],
): readonly WorkerState[] {
  if (roster.counts[status] === 0) return [];
  return state.workers.filter((worker) => worker.status === status);
}

/** Workers that may enter the next generation. */
export function candidates(draft: Draft): readonly WorkerState[] {
  return withStatus(draft, "ready");
}

export function setStatus(draft: Draft, { id }: WorkerState, status: WorkerState["status"]): void {
  draft.touched.add(id);
  change(draft, id, (worker) => {
    worker.status = status;
    worker.since = draft.state.time;
    worker.doing = "other";
    worker.file = undefined;
    worker.movedAt = draft.state.time;
  });
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
    doing: "other",
    file: undefined,
    movedAt: state.time,
    stopped: false,
    woken: false,
    draining: false,
    step: 0,
    steps: 0,
    kills: 0,
  };
  ownWorkers(draft).push(worker);
  draft.roster.enter(worker);
  draft.touched.add(worker.id);
  draft.actions.push({ kind, worker: worker.id, place, node });
  const did = kind === "start" ? "is started" : "joins";
  const text = capital(`${named(worker)} ${did} at place ${place}.`);
  tell(draft, kind === "start" ? "started" : "joined", text, worker.id);
}

export function remove(draft: Draft, { id }: WorkerState): void {
  const workers = ownWorkers(draft);
  const [worker] = workers.splice(placeIn(workers, id), 1);
  draft.roster.leave(worker as WorkerState);
}

/** Kills a worker, and waits for its end before any generation is formed (fencing). */
export function fence(draft: Draft, worker: WorkerState): void {
  setStatus(draft, worker, "lost");
  change(draft, worker.id, (lost) => {
    lost.kills += 1;
  });
  draft.actions.push({ kind: "kill", worker: worker.id });
}

/** Continues a worker whose process is stopped by a signal, and gives it time anew to be heard. */
export function wake(draft: Draft, { id }: WorkerState, silence: number): void {
  const worker = change(draft, id, (sleeping) => {
    sleeping.heard = draft.state.time;
    sleeping.woken = true;
  });
  draft.touched.add(id);
  draft.actions.push({ kind: "wake", worker: id });
  tell(draft, "woken", wokenText(worker, silence), id);
}

export interface Loss {
  readonly kind: Mishap["kind"];
  readonly cause: string;
  readonly code?: string;
  /** Whether its process is known to be dead. */
  readonly dead?: boolean;
}

/** Gives up a worker that was of use or was to be. Its generation breaks, if it was in one. */
export function lose(draft: Draft, { id }: WorkerState, { kind, cause, code, dead }: Loss): void {
  const { state } = draft;
  const worker = find(draft, id);
  if (worker === undefined || worker.status === "lost") return;
  tell(draft, "lost", lostText(state, worker, cause), worker.id);
  const wasMember = worker.status === "member";
  const generation = wasMember ? state.generation.number : undefined;
  state.mishaps = [...state.mishaps, { worker: worker.id, kind, code, text: cause, generation }];
  if (wasMember) {
    state.gone = [...state.gone, worker.id];
  }
  setAside(draft, worker, kind === "own");
  if (dead === true) remove(draft, worker);
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
  setRecord(draft, place, { losses, closed, restUntil: state.time + rest });
  if (rest > 0 && !closed) tell(draft, "aside", restText({ name: place, node }, losses, rest));
}

export function close(draft: Draft, { place }: WorkerState): void {
  const { state } = draft;
  const { losses, restUntil } = state.records[place] ?? { losses: 0, restUntil: state.time };
  setRecord(draft, place, { losses, restUntil, closed: true });
}

/** Replaces the record of a place, and forgets those that say nothing more. */
export function setRecord({ state }: Draft, place: string, record: PlaceRecord): void {
  const others = Object.entries(state.records).filter(
    ([, { closed, restUntil }]) => closed || restUntil + FORGET_MS >= state.time,
  );
  state.records = { ...Object.fromEntries(others), [place]: record };
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
  state.lookAt = state.time;
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
  draft.actions.push({ kind: "form", generation });
  if (spares.length > 0) {
    const many = spares.length > 1;
    tell(draft, "spare", `${capital(workers(spares))} ${many ? "stand" : "stands"} by.`);
  }
  enterPhase(draft, "running");
  state.progressAt = state.time;
  state.hasCommitted = false;
  [state.committed, state.done, state.gone] = [generation.step, [], []];
}

/** Takes note that the present generation committed a step. Returns false if it was known. */
export function commit(draft: Draft, step: number): boolean {
  const { state } = draft;
  if (step <= state.committed) return false;
  if (state.hasCommitted) {
    const took = (state.time - state.progressAt) / (step - state.committed);
    state.pace = withStep(state.pace, took);
  }
  for (const { id } of withStatus(draft, "member")) {
    change(draft, id, (member) => {
      member.step = step;
      member.steps += step - state.committed;
    });
  }
  [state.committed, state.progressAt, state.hasCommitted] = [step, state.time, true];
  state.lookAt = state.time; // the bound of all members may be shorter now
  if (step <= state.furthest) return true;
  state.furthest = step;
  [state.mishaps, state.reports, state.setbacks] = [[], [], 0];
  return true;
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
