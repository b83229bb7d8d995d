/**
 * What the leader of a run's membership decides: who takes part, in which generation, and when the
 * run cannot go on. It is a pure function of what it is told and of the time, in the manner of
 * torchft's lighthouse (`quorum_compute`), and gives a reason with everything that it decides.
 *
 * Two generations can never both commit. A step needs all members of its generation; and a new
 * generation is formed only when every member of the old one has left it (`ready`) or is fenced
 * (dead, or nothing that it says is taken any more). Messages of an older generation are ignored.
 */
import { assert } from "../errors.ts";
import type { Beat } from "./beats.ts";
import { BEAT_MS } from "./bounds.ts";
import { meetDeadlines } from "./deadlines.ts";
import {
  breakUp,
  change,
  close,
  commit,
  type Draft,
  dismiss,
  draftOf,
  find,
  finish,
  gather,
  lose,
  remove,
  setStatus,
  tell,
  withStatus,
} from "./draft.ts";
import { join } from "./join.ts";
import { judge, tooFew } from "./judge.ts";
import type {
  Decision,
  MembershipEvent,
  MembershipOptions,
  MembershipState,
  WorkerState,
} from "./types.ts";
import { capital, causeOfEnd, named, workers } from "./words.ts";

/** The leader wants to be called this often at least. */
const LOOK_MS = 1_000;
/**
 * If it is called this much later than it asked for, it was stopped or its clock jumped. Then hardly
 * any time counts, so that it blames no worker for that.
 */
const LATE_MS = 500;
/** What is done may make more due, but never so often. */
const MOST_ROUNDS = 100;
/** A process that was ended by one of these was ended from outside. */
const FROM_OUTSIDE = ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"];

/** The state before the first worker. The first event is `time`. */
export function firstState(now: number): MembershipState {
  return {
    phase: "gathering",
    since: 0,
    time: 0,
    calledAt: now,
    wakeAt: now,
    nextWorker: 0,
    generation: { number: 0, members: [], step: 0, holders: [] },
    workers: [],
    lookAt: 0,
    records: {},
    committed: 0,
    furthest: 0,
    saved: 0,
    progressAt: 0,
    hasCommitted: false,
    pace: undefined,
    done: [],
    mishaps: [],
    setbacks: 0,
    reports: [],
    gone: [],
    remindAt: undefined,
  };
}

/**
 * Takes one event, or several that came at once, and decides all that follows from it and from the time. The caller carries out
 * the actions in order, keeps the new state, and calls again with the next event or at `wakeAt`.
 * @param now milliseconds of any clock. If it jumps, or the caller was stopped, no worker is blamed
 */
export function decide(
  now: number,
  before: MembershipState,
  event: MembershipEvent,
  options: MembershipOptions,
): Decision {
  const draft = draftOf(before, options);
  const { state } = draft;
  const passed = Math.max(0, now - before.calledAt);
  const isLate = now > before.wakeAt + LATE_MS;
  state.time += isLate ? Math.min(passed, BEAT_MS) : passed;
  state.calledAt = now;
  take(draft, event);
  const next = settle(draft);
  const wait = next === undefined ? 0 : Math.ceil(next - state.time);
  state.wakeAt = now + Math.min(LOOK_MS, Math.max(1, wait));
  const { actions } = draft;
  const texts = actions.flatMap((action) => (action.kind === "tell" ? [action.text] : []));
  const wakeAt = next === undefined ? undefined : state.wakeAt;
  return { state: finish(draft), actions, reason: texts.join(" "), wakeAt };
}

/** Decides until nothing more is due. Returns when something will be; undefined after the end. */
function settle(draft: Draft): number | undefined {
  const { state } = draft;
  for (let round = 0; round < MOST_ROUNDS; round++) {
    const comesApart = state.phase === "pausing" || state.phase === "breaking";
    if (comesApart && draft.roster.counts.member === 0) gather(draft);
    judge(draft);
    if (state.phase === "ended") return undefined;
    const next = meetDeadlines(draft);
    if (next !== undefined) return next;
  }
  assert(false, "a decision comes to an end");
}

function take(draft: Draft, event: MembershipEvent): void {
  const { state } = draft;
  switch (event.kind) {
    case "time":
      return;
    case "several":
      for (const one of event.events) take(draft, one);
      return;
    case "restored":
      for (const { id } of state.workers) hear(draft, id);
      return;
    case "join":
      return join(draft, event.place, event.node);
    case "beats":
      for (const beat of event.beats) takeBeat(draft, beat);
      return;
    case "reported":
      return report(draft, event);
    case "saved":
      state.saved = event.step;
      return;
    case "began":
      // A newer checkpoint may have been damaged, so this may be an earlier step than `saved`.
      state.saved = state.committed = event.step;
      state.furthest = Math.max(state.furthest, event.step);
      return;
    default: {
      const worker = find(draft, event.worker);
      if (worker === undefined || state.phase === "ended") return;
      return takeOf(draft, worker, event);
    }
  }
}

function takeBeat(draft: Draft, { worker: id, progress }: Beat): void {
  const { state } = draft;
  const known = find(draft, id);
  if (known === undefined) return;
  // Of a process that lives but says nothing it is not known what it does.
  const silent = { doing: "other", stillMs: state.time - known.movedAt, file: undefined } as const;
  const { doing, stillMs, file } = progress ?? silent;
  // What it does now may have an earlier end.
  if (doing === "computing" && doing !== known.doing) draft.touched.add(id);
  change(draft, id, (worker) => {
    worker.heard = state.time;
    worker.stopped = worker.woken = false;
    worker.doing = doing;
    worker.file = file;
    worker.movedAt = Math.max(worker.since, state.time - stillMs);
  });
}

/** A sign of life. */
function hear(draft: Draft, id: number): WorkerState {
  return change(draft, id, (worker) => {
    worker.heard = draft.state.time;
    worker.stopped = worker.woken = false;
  });
}

type OfWorker = Exclude<
  MembershipEvent,
  {
    readonly kind:
      | "time"
      | "several"
      | "restored"
      | "join"
      | "beats"
      | "reported"
      | "saved"
      | "began";
  }
>;

/** An event of one worker. Of one that was given up, or may go, only its end matters. */
function takeOf(draft: Draft, known: WorkerState, event: OfWorker): void {
  const { state } = draft;
  const { id, status } = known;
  if (event.kind === "ended" || event.kind === "refused") return gone(draft, known, event);
  if (status === "lost" || status === "dismissed" || status === "done") return;
  const worker = isSign(event) ? hear(draft, id) : known;
  switch (event.kind) {
    case "ready":
      return ready(draft, worker, event);
    case "committed":
      if (event.generation !== state.generation.number) return;
      // A new leader tells the last step again, which is none of this generation.
      if (!commit(draft, event.step)) return;
      for (const leaving of withStatus(draft, "leaving")) dismiss(draft, leaving);
      return;
    case "failed": {
      const { own, code, text: cause } = event;
      return lose(draft, worker, { kind: own ? "own" : "consequence", cause, code });
    }
    case "closed": {
      const { why: cause = "its connection closed" } = event;
      return lose(draft, worker, { kind: "lost", cause });
    }
    case "stopped":
      draft.touched.add(id);
      change(draft, id, (still) => {
        still.stopped = true;
      });
      return;
    case "drain":
      return drain(draft, worker, event.why);
    case "done":
      if (status !== "member") return;
      setStatus(draft, worker, "done");
      state.done = [...state.done, id];
  }
}

/** Whether a worker that this comes from is alive and runs. */
function isSign({ kind }: OfWorker): boolean {
  return kind !== "closed" && kind !== "drain" && kind !== "stopped";
}

type Ready = Extract<MembershipEvent, { readonly kind: "ready" }>;

function ready(draft: Draft, worker: WorkerState, { generation, step, short }: Ready): void {
  const { state, options } = draft;
  const isMember = worker.status === "member" && generation === state.generation.number;
  if (!isMember && worker.status !== "starting" && worker.status !== "ready") return;
  change(draft, worker.id, (found) => {
    found.step = step;
  });
  if (worker.status === "ready") return;
  const isNew = worker.status === "starting";
  setStatus(draft, worker, worker.draining ? "leaving" : "ready");
  if (isMember && short !== undefined) tooFew(draft, short);
  if (isMember && state.phase === "running") {
    breakUp(draft, capital(`${named(worker)} has left generation ${generation} by itself.`));
  }
  const isFull = draft.roster.counts.member >= options.maxWorkers;
  if (isNew && isFull) tell(draft, "spare", capital(`${named(worker)} stands by.`), worker.id);
}

type Gone = Extract<MembershipEvent, { readonly kind: "ended" | "refused" }>;

/** The worker cannot do anything any more. */
function gone(draft: Draft, worker: WorkerState, event: Gone): void {
  const isExpected = ["lost", "leaving", "dismissed", "done"].includes(worker.status);
  if (isExpected) return remove(draft, worker);
  if (event.kind === "refused") {
    return lose(draft, worker, { kind: "lost", cause: "it is refused", dead: true });
  }
  const isOutside = event.signal !== null && FROM_OUTSIDE.includes(event.signal);
  lose(draft, worker, { kind: isOutside ? "lost" : "crash", cause: causeOfEnd(event), dead: true });
}

type Reported = Extract<MembershipEvent, { readonly kind: "reported" }>;

/**
 * The first report breaks the generation, and all are asked to answer, the accused too: it may be
 * only the way between the two that is broken. Later reports in the same generation may follow from
 * its end, so they say nothing. A worker that breaks two generations like this, without a new step
 * between, is given up.
 */
function report(draft: Draft, { by, worker: about, generation }: Reported): void {
  const { state } = draft;
  const [worker, witness] = [find(draft, about), find(draft, by)];
  if (state.phase !== "running" && state.phase !== "pausing") return;
  if (generation !== state.generation.number) return;
  if (worker?.status !== "member" || witness?.status !== "member") return;
  hear(draft, by);
  const known = state.reports.filter((made) => made.worker === about).map((made) => made.by);
  state.reports = [...state.reports, { by, worker: about }];
  if (known.length > 0) {
    const cause = `${workers([...new Set([...known, by])])} could not reach it`;
    return lose(draft, worker, { kind: "lost", cause });
  }
  const text = `${named(witness)} could not reach ${named(worker)}; all members meet anew.`;
  breakUp(draft, capital(text));
}

function drain(draft: Draft, worker: WorkerState, why: string): void {
  if (worker.draining) return;
  change(draft, worker.id, (leaving) => {
    leaving.draining = true;
  });
  close(draft, worker);
  tell(draft, "left", capital(`${named(worker)} is asked to leave: ${why}.`), worker.id);
  if (worker.status === "member") return;
  // One that waits for the next generation may hold what no other worker has.
  if (worker.status === "ready" && worker.step > 0) setStatus(draft, worker, "leaving");
  else dismiss(draft, worker);
}
