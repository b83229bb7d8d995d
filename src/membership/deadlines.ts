/**
 * What happens when nothing happens: every wait of a run's leader, with its end. The earliest end
 * is the time at which the leader wants to be called.
 */
import {
  ANSWER_MS,
  FIRST_STEP_MS,
  fileBound,
  GATHER_MS,
  HANDOVER_MS,
  KILL_MS,
  KILLS,
  LAST_CALL_MS,
  LEAVE_MS,
  leastOf,
  REMIND_MS,
  runBound,
  silenceBound,
  WORK_MS,
} from "./bounds.ts";
import {
  breakUp,
  candidates,
  type Draft,
  dismiss,
  end,
  enter,
  fence,
  find,
  lose,
  pause,
  tell,
  wake,
  withStatus,
} from "./draft.ts";
import { fitting, togetherIn, togetherText } from "./fitting.ts";
import { form, survivors } from "./form.ts";
import { isAtFile } from "./roster.ts";
import type { MembershipState, WorkerState } from "./types.ts";
import { capital, counted, fileText, named, span, workers } from "./words.ts";

/** A worker in one of these holds what it held after its last step. */
const HOLDING: readonly WorkerState["status"][] = ["ready", "member", "leaving"];

/** Sets what is to be done at a time of the leader's own clock. */
type At = (time: number, what: () => void) => void;

/** Does what is due. Returns when the next is due, or undefined if something was done. */
export function meetDeadlines(draft: Draft): number | undefined {
  const { state } = draft;
  let next = Number.POSITIVE_INFINITY;
  // What is done for one kind of deadline can change whether another is due.
  for (const collect of [ofWorkers, ofGathering, ofGeneration, ofPlaces]) {
    const due: (() => void)[] = [];
    collect(draft, (time, what) => {
      if (time <= state.time) due.push(what);
      else next = Math.min(next, time);
    });
    for (const what of due) if (state.phase !== "ended") what();
    if (due.length > 0) return undefined;
  }
  return next;
}

/** Looks at those workers whose waits are new, and at all of them when one of the others may end. */
function ofWorkers(draft: Draft, at: At): void {
  const { state, touched } = draft;
  const all = state.time >= state.lookAt;
  const changed = all ? [] : [...touched].flatMap((id) => find(draft, id) ?? []);
  touched.clear();
  let next = all ? state.time + WORK_MS : state.lookAt;
  const see: At = (time, what) => {
    next = Math.min(next, time);
    at(time, what);
  };
  for (const worker of all ? state.workers : changed) ofWorker(draft, worker, see);
  state.lookAt = next;
  if (next > state.time) at(next, () => undefined);
}

function ofWorker(draft: Draft, worker: WorkerState, at: At): void {
  const { state } = draft;
  const { since, status } = worker;
  const late = (end: number, cause: () => string) =>
    at(end, () => lose(draft, worker, { kind: "lost", cause: cause() }));
  const andWaits = () =>
    isAtFile(worker.doing) ? `, and ${fileText(worker, state.time - worker.movedAt)}` : "";
  switch (status) {
    case "done":
      return; // the others are watched, and the run ends with the last
    case "lost":
      return at(since + KILL_MS, () => killAgain(draft, worker));
    case "dismissed":
      return at(since + LEAVE_MS, () => {
        const text = `${named(worker)} did not end within ${span(LEAVE_MS)} and is killed.`;
        tell(draft, "left", capital(text), worker.id);
        fence(draft, worker);
      });
    case "leaving":
      // The last one that holds the state waits for those that are to take it.
      if (!isHolderAlone(draft, worker)) {
        return at(since + HANDOVER_MS, () => dismiss(draft, worker));
      }
      break;
    case "starting":
      late(since + WORK_MS, () => `it was not ready within ${span(WORK_MS)}${andWaits()}`);
      break;
    case "member":
      if (state.phase === "breaking") {
        const text = () => `it did not leave its generation within ${span(ANSWER_MS)}${andWaits()}`;
        late(state.since + ANSWER_MS, text);
      } else if (worker.doing === "computing") {
        const bound = runBound(state.pace);
        late(worker.movedAt + bound, () => `a run of its device has not ended for ${span(bound)}`);
      }
      break;
    case "ready":
  }
  const bound = silenceBound(state, worker);
  at(worker.heard + bound, () => {
    if (worker.stopped && !worker.woken && isLastHolder(draft, worker)) {
      return wake(draft, worker, bound);
    }
    const stopped = worker.stopped ? ", and its process is stopped by a signal" : "";
    const cause = `it showed no sign of life for ${span(bound)}${stopped}`;
    lose(draft, worker, { kind: "lost", cause });
  });
}

/** Whether the state of the run would be lost with this worker: no other that runs holds it. */
function isLastHolder(draft: Draft, worker: WorkerState): boolean {
  return isAhead(draft, worker, ({ status, stopped }) => !stopped && HOLDING.includes(status));
}

/** Whether only workers that leave, this one among them, hold the state of the run. */
function isHolderAlone(draft: Draft, worker: WorkerState): boolean {
  return isAhead(draft, worker, ({ status }) => status === "ready" || status === "member");
}

/** Whether a worker has a state, and none of these others is as far. */
function isAhead(
  { state }: Draft,
  { id, step }: WorkerState,
  counts: (other: WorkerState) => boolean,
): boolean {
  const isAsFar = (other: WorkerState) => other.id !== id && other.step >= step && counts(other);
  return step > 0 && !state.workers.some(isAsFar);
}

function killAgain(draft: Draft, worker: WorkerState): void {
  if (worker.kills < KILLS) {
    const text = `${named(worker)} is still there after ${counted(worker.kills, "attempt")} to kill it; it is tried again.`;
    tell(draft, "fencing", capital(text), worker.id);
    return fence(draft, worker);
  }
  const text =
    `${named(worker)} was lost, but it could not be killed in ${counted(worker.kills, "attempt")}. ` +
    "The run ends, because that worker may still commit steps of its own.";
  end(draft, { outcome: "failed", requeue: true, worker: worker.id, text: capital(text) });
}

/** A generation that lives: it must make progress, and changes when workers come or leave. */
function ofGeneration(draft: Draft, at: At): void {
  const { state, options } = draft;
  const { number } = state.generation;
  const { counts, waiting, draining, ready } = draft.roster;
  if (counts.member === 0 || (state.phase !== "running" && state.phase !== "pausing")) return;
  const stuck = (since: number, ms: number, what: string) =>
    at(since + ms, () =>
      breakUp(
        draft,
        `Generation ${number} is formed anew, because ${what} at step ${state.committed + 1} for ${span(ms)}.`,
      ),
    );
  atFiles(draft, at);
  stuck(state.progressAt, WORK_MS, "nothing was committed");
  if (waiting === counts.member) {
    const members = withStatus(draft, "member") as [WorkerState];
    const movedAt = Math.max(...members.map((member) => member.movedAt));
    stuck(movedAt, silenceBound(state, members[0]), "all its members have waited for each other");
  }
  if (state.phase !== "running") return;
  if (draining > 0) {
    const drained = withStatus(draft, "member").filter((member) => member.draining);
    const ids = drained.map(({ id }) => id);
    at(state.time, () => pause(draft, `${capital(workers(ids))} will leave after this step.`));
  }
  if (state.done.length > 0) return; // the run is about to be finished
  const [since] = ready.values();
  if (since === undefined || counts.member - draining >= options.maxWorkers) return;
  if (togetherIn(options) > 1) {
    const staying = withStatus(draft, "member").filter((member) => !member.draining);
    if (fitting([...staying, ...candidates(draft)], options).length <= staying.length) return;
  }
  at(counts.starting === 0 ? state.time : since + GATHER_MS, () => {
    const ids = candidates(draft).map(({ id }) => id);
    pause(
      draft,
      `${capital(workers(ids))} ${ids.length > 1 ? "enter" : "enters"} after this step.`,
    );
  });
}

/**
 * A member that waits for a file while others wait for it is lost. If all wait for files, as when the
 * disk that they share stands still, losing them would not help: people are told, once a minute.
 */
function atFiles(draft: Draft, at: At): void {
  const { state, roster } = draft;
  if (roster.atFiles === 0) return;
  const all = withStatus(draft, "member").filter(({ doing }) => isAtFile(doing));
  const ends = all.map((worker) => {
    const bound = fileBound(state.pace, worker.doing);
    return { worker, bound, end: worker.movedAt + bound };
  });
  if (all.length < roster.counts.member) {
    for (const { worker, bound, end } of ends) {
      const cause = `it ${fileText(worker, bound)}`;
      at(end, () => lose(draft, worker, { kind: "lost", cause }));
    }
    return;
  }
  const [first] = ends.sort((a, b) => a.end - b.end);
  if (first === undefined) return;
  at(Math.max(first.end, state.remindAt ?? 0), () => {
    const { worker } = first;
    const what = fileText(worker, state.time - worker.movedAt);
    const text = `The run waits at step ${state.committed + 1}: ${named(worker)} ${what}.`;
    tell(draft, "waiting", text, worker.id);
    state.remindAt = state.time + REMIND_MS;
  });
}

/** No generation lives: one is formed as soon as enough workers are ready, or people are told. */
function ofGathering(draft: Draft, at: At): void {
  const { state, options, roster } = draft;
  if (state.phase !== "gathering") return;
  const { starting, lost } = roster.counts;
  if (lost > 0) return; // not before all of them are fenced
  const isDivided = togetherIn(options) > 1;
  const ready = isDivided ? fitting(candidates(draft), options).length : roster.ready.size;
  const least = leastOf(state, options);
  const missing = least - ready;
  if (missing <= 0) {
    const isComplete = starting === 0 || ready >= options.maxWorkers;
    const now = isComplete || survivors(draft).length > 0 || roster.counts.leaving > 0;
    const since = roster.readySince(isDivided ? roster.ready.size : least);
    const end = now ? state.time : since + LAST_CALL_MS;
    return at(end, () => form(draft));
  }
  if (state.remindAt !== undefined) {
    at(state.remindAt, () => {
      state.remindAt = undefined;
    });
  } else if (freePlaces(draft).some(({ rest }) => rest <= 0)) {
    return; // workers start there at once
  } else if (state.generation.number > 0 || starting < missing) {
    at(state.time, () => wait(draft));
  }
}

/** Says what the run waits for, once a minute. */
function wait(draft: Draft): void {
  const { state, options } = draft;
  const least = leastOf(state, options);
  const ready = draft.roster.ready.size;
  const rests = freePlaces(draft).map(({ rest }) => rest);
  const { starting } = draft.roster.counts;
  const hope = [
    ...(starting > 0
      ? [`${counted(starting, "worker")} ${starting === 1 ? "is" : "are"} starting`]
      : []),
    ...(rests.length > 0
      ? [`the next one starts in ${span(Math.max(0, Math.min(...rests)))}`]
      : []),
  ];
  const then = hope.length > 0 ? hope.join(", and ") : "it goes on when workers join";
  const why = least > options.minWorkers ? ` ${state.least?.why}` : "";
  const text = `The run waits after step ${state.committed}: ${counted(ready, "worker")} ${ready === 1 ? "is" : "are"} ready, and it needs ${least}${togetherText(options)}; ${then}.${why}`;
  tell(draft, "waiting", text);
  state.remindAt = state.time + REMIND_MS;
}

/** Places without a worker, and for how long they are still set aside, in ms. */
function freePlaces({ state, roster }: Draft) {
  return [...roster.free]
    .filter(([, { name }]) => state.records[name]?.closed !== true)
    .map(([index, place]) => {
      const rest = (state.records[place.name]?.restUntil ?? 0) - state.time;
      return { index, place, rest };
    });
}

/**
 * The launcher starts a worker at each free place, but not while a generation comes apart, and not
 * when the run is to stop or about to be finished.
 */
function ofPlaces(draft: Draft, at: At): void {
  const { state, options } = draft;
  if (state.phase !== "gathering" && state.phase !== "running") return;
  if (options.stops === true || (state.phase === "running" && state.done.length > 0)) return;
  const earliest = earliestStart(state);
  const free = freePlaces(draft);
  const due = free.filter(({ rest }) => rest <= 0).sort((a, b) => a.index - b.index);
  const rests = free.filter(({ rest }) => rest > 0);
  for (const { place, rest } of [...due, ...rests]) {
    at(Math.max(earliest, state.time + rest), () => enter(draft, "start", place.name, place.node));
  }
}

/**
 * A process that starts takes processor time, so the first step after a loss goes first, unless it
 * takes long, or another worker is lost before it.
 */
function earliestStart({ phase, since, hasCommitted, setbacks }: MembershipState): number {
  const isFirst = phase === "running" && !hasCommitted && setbacks === 1;
  return isFirst ? since + FIRST_STEP_MS : 0;
}
