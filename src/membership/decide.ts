/**
 * What the leader of a run's membership decides: who takes part, in which generation, and when the
 * run cannot go on. It is a pure function of what it is told and of the time, in the manner of
 * torchft's lighthouse (`quorum_compute`), and gives a reason with everything that it decides.
 *
 * Two generations can never both commit. A step needs all members of its generation; and a new
 * generation is formed only when every member of the old one has left it (`ready`) or is fenced
 * (dead, or nothing that it says is taken any more). Messages of an older generation are ignored.
 */
import { FORGET_MS, mostSetbacks } from "./bounds.ts";
import { meetDeadlines } from "./deadlines.ts";
import {
  breakUp,
  close,
  commit,
  type Draft,
  dismiss,
  draftOf,
  end,
  enter,
  gather,
  lose,
  remove,
  setStatus,
  tell,
  withStatus,
} from "./draft.ts";
import type {
  Action,
  Decision,
  MembershipEvent,
  MembershipOptions,
  MembershipState,
  WorkerState,
} from "./types.ts";
import { capital, causeOfEnd, counted, named, workers } from "./words.ts";

/** How much later than asked for the leader may be called until its own clock stands still. */
const LATE_MS = 500;
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
    records: {},
    committed: 0,
    furthest: 0,
    progressAt: 0,
    hasCommitted: false,
    pace: undefined,
    done: [],
    samples: [],
    mishaps: [],
    setbacks: 0,
    reports: [],
    gone: [],
    remindAt: undefined,
  };
}

/**
 * Takes one event, and decides all that follows from it and from the time. The caller carries out
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
  const mostPassed = Math.max(0, before.wakeAt - before.calledAt) + LATE_MS;
  state.time += Math.min(Math.max(0, now - before.calledAt), mostPassed);
  state.calledAt = now;
  take(draft, event);
  const next = settle(draft);
  state.wakeAt = next === undefined ? now : now + (next - state.time);
  const { actions } = draft;
  const texts = actions.flatMap((action) => (action.kind === "tell" ? [action.text] : []));
  const wakeAt = next === undefined ? undefined : state.wakeAt;
  return { state, actions, reason: texts.join(" "), wakeAt };
}

/** Decides until nothing more is due. Returns when something will be; undefined after the end. */
function settle(draft: Draft): number | undefined {
  const { state } = draft;
  let next: number | undefined;
  while (next === undefined) {
    const comesApart = state.phase === "pausing" || state.phase === "breaking";
    const isApart = withStatus(draft, "member").length + withStatus(draft, "lost").length === 0;
    if (comesApart && isApart) gather(draft);
    judge(draft);
    if (state.phase === "ended") return undefined;
    next = meetDeadlines(draft);
  }
  return next;
}

/** Ends the run when it is finished, or when it would only fail again. */
function judge(draft: Draft): void {
  const { state, options } = draft;
  const { mishaps, generation, done, setbacks } = state;
  if (state.phase === "ended") return;
  if (done.length > 0 && done.length === generation.members.length) {
    const text = `All ${counted(done.length, "worker")} of generation ${generation.number} are done.`;
    return end(draft, { outcome: "finished", requeue: false, text });
  }
  const own = mishaps.filter(({ kind }) => kind === "own");
  const [first] = own;
  if (first !== undefined) {
    const { code, worker, text: cause } = first;
    const same = own.filter((mishap) => mishap.code === code);
    const nobodyIsLeft = state.workers.every(
      ({ status }) => status === "lost" || status === "dismissed" || status === "done",
    );
    const failedAll = nobodyIsLeft && own.length === mishaps.length;
    if (failedAll || same.length >= 3) {
      const who = failedAll ? own : same;
      const ids = who.map((mishap) => mishap.worker);
      const failed =
        who.length === 1 ? "failed by an error of its own" : "failed by errors of their own";
      const text =
        `The run ends, because ${workers(ids)} ${failed} at step ${state.committed + 1} ` +
        `and no worker was left that did not (${cause}). It would fail again if it were started again.`;
      const shown = failedAll ? text : text.replace("and no worker was left that did not ", "");
      const error = code === undefined ? {} : { code };
      return end(draft, { outcome: "failed", requeue: false, worker, ...error, text: shown });
    }
  }
  const most = mostSetbacks(state, options);
  if (setbacks <= most) return;
  const requeue = mishaps.some(({ kind }) => kind === "lost");
  const last = mishaps.at(-1);
  const cause =
    last === undefined ? "" : ` The last one lost was worker ${last.worker}: ${last.text}.`;
  const text = `The run ends, because it was set back ${setbacks} times without a newly committed step after step ${state.furthest}.${cause}`;
  end(draft, { outcome: "failed", requeue, ...(last && { worker: last.worker }), text });
}

function take(draft: Draft, event: MembershipEvent): void {
  const { state } = draft;
  switch (event.kind) {
    case "time":
      return;
    case "restored":
      for (const worker of state.workers) worker.heard = state.time;
      return;
    case "join":
      return join(draft, event.place, event.node);
    case "beats":
      for (const { worker, generation, waiting = false } of event.beats) {
        const found = draft.byId.get(worker);
        if (found === undefined) continue;
        found.heard = state.time;
        if (generation === state.generation.number) found.waiting = waiting;
      }
      return;
    case "reported":
      return report(draft, event);
    default: {
      const worker = draft.byId.get(event.worker);
      if (worker === undefined || state.phase === "ended") return;
      return takeOf(draft, worker, event);
    }
  }
}

type OfWorker = Exclude<
  MembershipEvent,
  { readonly kind: "time" | "restored" | "join" | "beats" | "reported" }
>;

/** An event of one worker. Only its end matters of a worker that was given up. */
function takeOf(draft: Draft, worker: WorkerState, event: OfWorker): void {
  const { state } = draft;
  if (event.kind === "ended" || event.kind === "refused") return gone(draft, worker, event);
  if (worker.status === "lost") return;
  if (event.kind !== "closed" && event.kind !== "drain") worker.heard = state.time;
  switch (event.kind) {
    case "ready":
      return ready(draft, worker, event);
    case "committed":
      if (event.generation !== state.generation.number) return;
      commit(draft, event.step, event.samples);
      for (const leaving of withStatus(draft, "leaving")) dismiss(draft, leaving);
      return;
    case "failed": {
      const { own, code, text: cause } = event;
      return lose(draft, worker, { kind: own ? "own" : "lost", cause, code });
    }
    case "closed":
      if (worker.status === "dismissed" || worker.status === "done") return;
      return lose(draft, worker, { kind: "lost", cause: "its connection closed" });
    case "drain":
      return drain(draft, worker, event.why);
    case "done":
      if (worker.status !== "member") return;
      setStatus(draft, worker, "done");
      state.done.push(worker.id);
  }
}

type Ready = Extract<MembershipEvent, { readonly kind: "ready" }>;

function ready(draft: Draft, worker: WorkerState, { generation, step }: Ready): void {
  const { state, options } = draft;
  if (worker.status === "ready") worker.step = step;
  const isMember = worker.status === "member" && generation === state.generation.number;
  if (!isMember && worker.status !== "starting") return;
  const isNew = worker.status === "starting";
  setStatus(draft, worker, worker.draining ? "leaving" : "ready");
  worker.step = step;
  if (isMember && state.phase === "running") {
    breakUp(draft, capital(`${named(worker)} has left generation ${generation} by itself.`));
  }
  const isFull = withStatus(draft, "member").length >= options.maxWorkers;
  if (isNew && isFull) tell(draft, "spare", capital(`${named(worker)} stands by.`), worker.id);
}

type Gone = Extract<MembershipEvent, { readonly kind: "ended" | "refused" }>;

/** The worker cannot do anything any more. */
function gone(draft: Draft, worker: WorkerState, event: Gone): void {
  const { status } = worker;
  if (event.kind === "refused") {
    if (status !== "lost") lose(draft, worker, { kind: "lost", cause: "it was refused" });
    return remove(draft, worker);
  }
  const isExpected = status === "lost" || status === "dismissed" || status === "done";
  if (isExpected) return remove(draft, worker);
  const isOutside = event.signal !== null && FROM_OUTSIDE.includes(event.signal);
  lose(draft, worker, { kind: isOutside ? "lost" : "crash", cause: causeOfEnd(event), dead: true });
}

/**
 * One report breaks the generation, and the accused must answer like everyone else: it may be only
 * the way between both that is broken. After the second report without a new step it is given up.
 */
function report(
  draft: Draft,
  { by, worker: about, generation }: Extract<MembershipEvent, { readonly kind: "reported" }>,
): void {
  const { state, byId } = draft;
  const [worker, witness] = [byId.get(about), byId.get(by)];
  if (generation !== state.generation.number || worker === undefined || witness === undefined)
    return;
  if (witness.status === "lost" || worker.status === "lost" || worker.status === "done") return;
  if (!state.generation.members.some((member) => member.worker === about)) return;
  const known = state.reports.filter((made) => made.worker === about);
  if (known.some((made) => made.by === by && made.generation === generation)) return;
  state.reports.push({ by, worker: about, generation });
  const witnesses = [...new Set([...known.map((made) => made.by), by])];
  if (known.length > 0) {
    return lose(draft, worker, { kind: "lost", cause: `${workers(witnesses)} could not reach it` });
  }
  breakUp(
    draft,
    capital(`${named(witness)} could not reach ${named(worker)}; all are asked to meet again.`),
  );
}

function drain(draft: Draft, worker: WorkerState, why: string): void {
  if (worker.draining || worker.status === "dismissed" || worker.status === "done") return;
  worker.draining = true;
  close(draft, worker);
  tell(draft, "left", capital(`${named(worker)} is asked to leave: ${why}.`), worker.id);
  if (worker.status !== "member") dismiss(draft, worker);
}

/** Admits a worker, unless its place is set aside, or too many take part already. */
function join(draft: Draft, place: string, node: string): void {
  const { state, options, actions } = draft;
  const refuse = (retryMs: number, why: string) => {
    const refusal: Action = { kind: "refuse", place, retryMs };
    actions.push(refusal);
    tell(draft, "aside", `A worker of host ${node} (place ${place}) is not admitted: ${why}.`);
  };
  if (state.phase === "ended") return refuse(FORGET_MS, "the run has ended");
  for (const old of state.workers.filter((worker) => worker.place === place)) {
    lose(draft, old, { kind: "lost", cause: "another worker joins in its place" });
  }
  const record = state.records[place];
  const rest = (record?.restUntil ?? 0) - state.time;
  if (rest > 0)
    return refuse(rest, `${counted(record?.losses ?? 0, "worker")} of it were lost in a row`);
  if (record?.closed) state.records[place] = { ...record, closed: false };
  const most = 2 * options.maxWorkers + options.places.length;
  if (state.workers.length >= most) return refuse(FORGET_MS, `${most} workers take part already`);
  enter(draft, "admit", place, node);
}
