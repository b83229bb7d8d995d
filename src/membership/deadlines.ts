/**
 * What happens when nothing happens: every wait of a run's leader, with its end. The earliest end
 * is the time at which the leader wants to be called.
 */
import {
  ANSWER_MS,
  GATHER_MS,
  HANDOVER_MS,
  KILL_MS,
  KILLS,
  LAST_CALL_MS,
  LEAVE_MS,
  REMIND_MS,
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
  lose,
  pause,
  tell,
  withStatus,
} from "./draft.ts";
import { form, survivors } from "./form.ts";
import type { WorkerState } from "./types.ts";
import { capital, counted, named, span, workers } from "./words.ts";

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

function ofWorkers(draft: Draft, at: At): void {
  for (const worker of draft.state.workers) ofWorker(draft, worker, at);
}

function ofWorker(draft: Draft, worker: WorkerState, at: At): void {
  const { state } = draft;
  const { since, status } = worker;
  const late = (end: number, cause: string) =>
    at(end, () => lose(draft, worker, { kind: "lost", cause }));
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
      return at(since + HANDOVER_MS, () => dismiss(draft, worker));
    case "starting":
      late(since + WORK_MS, `it was not ready within ${span(WORK_MS)}`);
      break;
    case "member":
      if (state.phase === "breaking") {
        late(state.since + ANSWER_MS, `it did not leave its generation within ${span(ANSWER_MS)}`);
      }
      break;
    case "ready":
  }
  const bound = silenceBound(state, worker);
  const stopped = worker.stopped ? ", and its process is stopped by a signal" : "";
  late(worker.heard + bound, `it showed no sign of life for ${span(bound)}${stopped}`);
}

function killAgain(draft: Draft, worker: WorkerState): void {
  if (worker.kills < KILLS) {
    const text = `${named(worker)} is still there after ${counted(worker.kills, "attempt")} to kill it; it is tried again.`;
    tell(draft, "lost", capital(text), worker.id);
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
  const members = withStatus(draft, "member");
  const [first] = members;
  if (first === undefined || (state.phase !== "running" && state.phase !== "pausing")) return;
  const stuck = (ms: number, what: string) =>
    at(state.progressAt + ms, () =>
      breakUp(
        draft,
        `Generation ${number} is formed anew, because ${what} at step ${state.committed + 1} for ${span(ms)}.`,
      ),
    );
  stuck(WORK_MS, "nothing was committed");
  if (members.every(({ waiting }) => waiting)) {
    stuck(silenceBound(state, first), "all its members have waited for each other");
  }
  if (state.phase !== "running") return;
  const drained = members.filter(({ draining }) => draining).map(({ id }) => id);
  if (drained.length > 0) {
    at(state.time, () => pause(draft, `${capital(workers(drained))} will leave after this step.`));
  }
  if (state.done.length > 0) return; // the run is about to be finished
  const newcomers = candidates(draft);
  if (newcomers.length === 0 || members.length - drained.length >= options.maxWorkers) return;
  const ids = newcomers.map(({ id }) => id);
  const isAlone = withStatus(draft, "starting").length === 0;
  const ready = Math.min(...newcomers.map(({ since }) => since));
  at(isAlone ? state.time : ready + GATHER_MS, () =>
    pause(
      draft,
      `${capital(workers(ids))} ${ids.length > 1 ? "enter" : "enters"} after this step.`,
    ),
  );
}

/** No generation lives: one is formed as soon as enough workers are ready, or people are told. */
function ofGathering(draft: Draft, at: At): void {
  const { state, options } = draft;
  if (state.phase !== "gathering") return;
  if (withStatus(draft, "lost").length > 0) return; // not before all of them are fenced
  const ready = candidates(draft);
  const starting = withStatus(draft, "starting").length;
  const missing = options.minWorkers - ready.length;
  if (missing <= 0) {
    const isComplete = starting === 0 || ready.length >= options.maxWorkers;
    const sinces = ready.map(({ since }) => since).sort((a, b) => a - b);
    const enoughSince = sinces[options.minWorkers - 1] as number;
    const now = isComplete || survivors(draft).length > 0;
    return at(now ? state.time : enoughSince + LAST_CALL_MS, () => form(draft));
  }
  if (state.remindAt !== undefined) {
    at(state.remindAt, () => {
      state.remindAt = undefined;
    });
  } else if (freePlaces(draft).some(({ rest }) => rest <= 0)) {
    return; // workers start there at once
  } else if (state.generation.number > 0 || starting < missing) {
    at(state.time, () => wait(draft, missing));
  }
}

/** Says what the run waits for, once a minute. */
function wait(draft: Draft, missing: number): void {
  const { state, options } = draft;
  const ready = options.minWorkers - missing;
  const rests = freePlaces(draft).map(({ rest }) => rest);
  const starting = withStatus(draft, "starting").length;
  const hope = [
    ...(starting > 0
      ? [`${counted(starting, "worker")} ${starting === 1 ? "is" : "are"} starting`]
      : []),
    ...(rests.length > 0
      ? [`the next one starts in ${span(Math.max(0, Math.min(...rests)))}`]
      : []),
  ];
  const then = hope.length > 0 ? hope.join(", and ") : "it goes on when workers join";
  const text = `The run waits after step ${state.committed}: ${counted(ready, "worker")} ${ready === 1 ? "is" : "are"} ready, and it needs ${options.minWorkers}; ${then}.`;
  tell(draft, "waiting", text);
  state.remindAt = state.time + REMIND_MS;
}

/** Places without a worker, and for how long they are still set aside, in ms. */
function freePlaces({ state, options }: Draft) {
  const used = new Set(state.workers.map(({ place }) => place));
  return options.places
    .filter(({ name }) => !used.has(name) && !state.records[name]?.closed)
    .map((place) => ({ place, rest: (state.records[place.name]?.restUntil ?? 0) - state.time }));
}

/** The launcher starts a worker at each free place, but not while a generation comes apart. */
function ofPlaces(draft: Draft, at: At): void {
  const { state } = draft;
  if (state.phase !== "gathering" && state.phase !== "running") return;
  for (const { place, rest } of freePlaces(draft)) {
    at(state.time + rest, () => enter(draft, "start", place.name, place.node));
  }
}
