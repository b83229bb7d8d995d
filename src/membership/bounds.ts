/**
 * How long the leader of a run waits for what. The bound for a silent member follows the measured
 * time of a step, so nothing is configured.
 */
import type { Doing } from "./beats.ts";
import { togetherIn } from "./fitting.ts";
import type { MembershipOptions, MembershipState, Pace, WorkerState } from "./types.ts";

/** How often a worker says that it lives. */
export const BEAT_MS = 250;
/** The shortest bound: six beats. */
const LEAST_PATIENCE_MS = 6 * BEAT_MS;
const MOST_PATIENCE_MS = 300_000;
/** The bound for the silence of a worker whose steps are not measured: it starts, joins, waits. */
const UNMEASURED_MS = 10_000;
/** How long a member that lives may take to leave a generation that broke. */
export const ANSWER_MS = 30_000;
/** How long a worker that lives may take to get ready, or a generation for one step. */
export const WORK_MS = 3_600_000;
/** How long one operation that writes a file may take. */
const FLUSH_MS = 600_000;
/** How long one attempt to kill a worker may take, and how many there are. */
export const KILL_MS = 5_000;
export const KILLS = 4;
/**
 * When enough workers are ready but others are starting: how long the first generation waits for
 * those (the "last call" of torchelastic's rendezvous), and how long a running one.
 */
export const LAST_CALL_MS = 30_000;
export const GATHER_MS = 2_000;
/** How long a new process waits for the first step after a loss. */
export const FIRST_STEP_MS = 5_000;
/** How long a worker that leaves stays for what others need of it, and then for its own end. */
export const HANDOVER_MS = 20_000;
export const LEAVE_MS = 10_000;
export const REMIND_MS = 60_000;
/** A worker was of use if it took part in this many steps. */
const USEFUL_STEPS = 20;
const FIRST_REST_MS = 1_000;
const MOST_REST_MS = 300_000;
/** A record that says nothing more is forgotten after this time. */
export const FORGET_MS = 2 * MOST_REST_MS;

/**
 * The silence after which a member is lost: twice what a step may take at most by the estimate of
 * RFC 6298 (TCP's timer: smoothed mean + 4 × smoothed deviation), between 1.5 s and 5 minutes.
 */
export function patienceOf(pace: Pace | undefined): number {
  if (pace === undefined) return UNMEASURED_MS;
  const bound = 2 * (pace.mean + 4 * pace.deviation);
  return Math.min(MOST_PATIENCE_MS, Math.max(LEAST_PATIENCE_MS, bound));
}

/**
 * A step that took longer than the bound (it validated or saved) counts as the bound, so that one
 * pause does not hide a hang.
 */
export function withStep(pace: Pace | undefined, took: number): Pace {
  if (pace === undefined) return { mean: took, deviation: took / 2 };
  const counted = Math.min(took, patienceOf(pace));
  return {
    mean: pace.mean + (counted - pace.mean) / 8,
    deviation: pace.deviation + (Math.abs(counted - pace.mean) - pace.deviation) / 4,
  };
}

/** A process that is stopped by a signal is not slow, so its bound does not follow the steps. */
export function silenceBound({ hasCommitted, pace }: MembershipState, worker: WorkerState): number {
  if (worker.stopped) return LEAST_PATIENCE_MS;
  return worker.status === "member" && hasCommitted ? patienceOf(pace) : UNMEASURED_MS;
}

/**
 * How long one run of a device may take. A step has many, so a member that computes for ten times
 * the bound of a silent one hangs; before steps are measured, nobody knows.
 */
export function runBound(pace: Pace | undefined): number {
  return pace === undefined ? WORK_MS : 10 * patienceOf(pace);
}

/**
 * How long a member may wait for one operation on a file while others wait for it. A read has at most
 * 256 MiB; a flush may have all that the system has kept in memory for a file.
 */
export function fileBound(pace: Pace | undefined, doing: Doing): number {
  return doing === "reading" ? runBound(pace) : FLUSH_MS;
}

/** The fewest workers that go on: as many as are asked for, and have room for the state of the run. */
export function leastOf({ least }: MembershipState, options: MembershipOptions): number {
  const { minWorkers, stops } = options;
  const together = togetherIn(options);
  const wanted = stops === true ? minWorkers : Math.max(minWorkers, least?.workers ?? 0);
  return Math.ceil(wanted / together) * together;
}

/**
 * How often a generation may break, or a worker be lost outside of one, without a new committed
 * step between. This is the restart intensity of Erlang's supervisors, with steps for its clock: a
 * period in seconds would depend on how long a step takes.
 */
export function mostSetbacks(state: MembershipState, { places }: MembershipOptions): number {
  return Math.max(5, 3 * Math.max(places.length, state.generation.members.length));
}

/** @returns how long a place rests after it lost a worker, and how many losses it has in a row */
export function restAfter(
  losses: number,
  { steps }: WorkerState,
  own: boolean,
): { readonly rest: number; readonly losses: number } {
  const before = steps >= USEFUL_STEPS ? 0 : losses;
  const doubled = FIRST_REST_MS * 2 ** Math.min(before - 1, 20);
  const rest = before > 0 ? doubled : own ? FIRST_REST_MS : 0;
  return { rest: Math.min(MOST_REST_MS, rest), losses: before + 1 };
}
