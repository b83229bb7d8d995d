/**
 * The words of a run's membership: what its leader is told (events), what it keeps in mind (a state
 * that is plain JSON), and what it wants done (actions). All times are in milliseconds.
 */

import type { Beat, Doing } from "./beats.ts";

export interface MembershipOptions {
  /** With fewer workers the run waits. At least 1. */
  readonly minWorkers: number;
  /** A run that is to stop waits for no more workers than it has. Default: false. */
  readonly stops?: boolean;
  /** Workers beyond this number stand by until they are needed. */
  readonly maxWorkers: number;
  /**
   * The members of a generation are a multiple of this: so many workers divide the model among them.
   * Default: 1.
   */
  readonly together?: number;
  /**
   * The members on each node are a multiple of this. If it is less than `together`, those that divide
   * the model may be on several nodes. Default: as `together`.
   */
  readonly within?: number;
  /** Where the launcher can start workers by itself: one worker at each place. */
  readonly places: readonly Place[];
}

/** Where one worker at a time can live. */
export interface Place {
  readonly name: string;
  /** The machine. */
  readonly node: string;
}

/**
 * What happened. `worker` is the number that a `start` or an `admit` gave to one process; a process
 * that is started again has another number. `generation` is the one that the sender belongs to, or
 * that it has left; 0 before its first.
 */
export type MembershipEvent =
  /** The time that `wakeAt` asked for has come; also the first event of a run. */
  | { readonly kind: "time" }
  /** What came at once is taken in this order, and decided on once. */
  | { readonly kind: "several"; readonly events: readonly MembershipEvent[] }
  /** The leader was restarted from its stored state: every worker has time anew to be heard. */
  | { readonly kind: "restored" }
  /** A worker that was not started by the launcher asks to take part. */
  | { readonly kind: "join"; readonly place: string; readonly node: string }
  /**
   * Signs of life, the first ones too, of many workers at once. A process that uses processor time,
   * or waits for a disk, lives, though its event loop may stand still.
   */
  | { readonly kind: "beats"; readonly beats: readonly Beat[] }
  /**
   * The worker has left `generation` (by itself or as asked by `regroup`), or is new. It holds the
   * state after `step`, and computes nothing until it is told of a new generation. `short`: so many
   * workers had no room for the state of the run.
   */
  | {
      readonly kind: "ready";
      readonly worker: number;
      readonly generation: number;
      readonly step: number;
      readonly short?: Short | undefined;
    }
  | {
      readonly kind: "committed";
      readonly worker: number;
      readonly generation: number;
      readonly step: number;
    }
  /** The state after this step lies on disk, and a run without any other state continues from it. */
  | { readonly kind: "saved"; readonly step: number }
  /** The run has begun, or goes on, from the state on disk after this step. */
  | { readonly kind: "began"; readonly step: number }
  /** The worker's process is stopped by a signal. It has time to go on, until its next beat. */
  | { readonly kind: "stopped"; readonly worker: number }
  /** A member says that it has lost another one. */
  | {
      readonly kind: "reported";
      readonly by: number;
      readonly worker: number;
      readonly generation: number;
    }
  /** `own`: by an error of its own, and not in consequence of another worker's end. */
  | {
      readonly kind: "failed";
      readonly worker: number;
      readonly code: string;
      readonly text: string;
      readonly own: boolean;
    }
  /** The process is dead: its handle says so. */
  | {
      readonly kind: "ended";
      readonly worker: number;
      readonly status: number | null;
      readonly signal: string | null;
    }
  /** The connection to the worker has closed; its process may live. */
  | { readonly kind: "closed"; readonly worker: number; readonly why?: string }
  /** The worker cannot be killed from here, but nothing that it says is taken any more. */
  | { readonly kind: "refused"; readonly worker: number }
  /** The worker is to leave: a preemption notice, a signal, a person. */
  | { readonly kind: "drain"; readonly worker: number; readonly why: string }
  /** The worker has nothing left to do, because all steps are done. */
  | { readonly kind: "done"; readonly worker: number };

/** So many workers were too few; `why` is a sentence. */
export interface Short {
  readonly workers: number;
  readonly why: string;
}

export type Action =
  | {
      readonly kind: "start" | "admit";
      readonly worker: number;
      readonly place: string;
      readonly node: string;
    }
  /** Not to be admitted before `retryMs` have passed. */
  | { readonly kind: "refuse"; readonly place: string; readonly retryMs: number }
  /** The worker's process is stopped by a signal, and is to be continued (SIGCONT). */
  | { readonly kind: "wake"; readonly worker: number }
  /** Answered by `ended` or `refused`. No generation is formed before that. */
  | { readonly kind: "kill"; readonly worker: number }
  /**
   * These members are to leave the generation and to answer `ready`: after the present step, which
   * they all commit, or at once, because it can no longer be committed.
   */
  | {
      readonly kind: "regroup";
      readonly generation: number;
      readonly workers: readonly number[];
      readonly when: "after-step" | "now";
    }
  /** All members are told of their new generation. */
  | { readonly kind: "form"; readonly generation: Generation }
  /** The worker may go: it holds nothing that others need. */
  | { readonly kind: "dismiss"; readonly worker: number }
  | { readonly kind: "end"; readonly verdict: Verdict }
  /** For people, and for the event stream of the run. */
  | {
      readonly kind: "tell";
      readonly about: Topic;
      readonly worker?: number;
      /** One sentence or more. */
      readonly text: string;
    };

export type Topic =
  | "started"
  | "joined"
  | "lost"
  /** A worker that was told to be lost, and still lives. */
  | "fencing"
  | "woken"
  | "left"
  | "aside"
  | "spare"
  | "regroup"
  | "generation"
  | "waiting"
  | "ended";

/** A membership that commits steps together. */
export interface Generation {
  /** Counts from 1. */
  readonly number: number;
  /** By rank. Members of one node have consecutive ranks. */
  readonly members: readonly Member[];
  /** The steps committed before this generation. */
  readonly step: number;
  /** The members that hold the state after `step`; none if it is that of the checkpoint. */
  readonly holders: readonly number[];
}

export interface Member {
  readonly worker: number;
  readonly node: string;
  /** The step whose state the member holds; others must bring it up to date if it is behind. */
  readonly step: number;
}

export interface Verdict {
  readonly outcome: "finished" | "failed";
  /** Whether the same run may do better when it is started again. */
  readonly requeue: boolean;
  /** The worker whose error ended the run, and the code of that error. */
  readonly worker?: number;
  readonly code?: string;
  readonly text: string;
}

export interface Decision {
  readonly state: MembershipState;
  /** In order. */
  readonly actions: readonly Action[];
  /** All that is told, as one text; empty if and only if there is no action. */
  readonly reason: string;
  /** When to call again if nothing happens before; undefined only after the end. */
  readonly wakeAt: number | undefined;
}

/**
 * What the leader keeps in mind: plain JSON. Times within it are those of a clock of its own, which
 * stands still while the leader does. A state shares with the one before what did not change.
 */
export interface MembershipState {
  /**
   * gathering: no generation lives. running: one does. pausing: it ends after its present step.
   * breaking: it cannot commit any more, and its members leave it.
   */
  phase: "gathering" | "running" | "pausing" | "breaking" | "ended";
  /** When the phase began. */
  since: number;
  time: number;
  /** The last call, by the caller's clock, and when it was to call again. */
  calledAt: number;
  wakeAt: number;
  nextWorker: number;
  generation: Generation;
  /** Ascending by number: those that live, and those that may still live. */
  workers: readonly WorkerState[];
  /** No wait for a worker ends before, so that until then only those that change are looked at. */
  lookAt: number;
  /** By place: only those where workers were lost or from which they were sent away. */
  records: Readonly<Record<string, PlaceRecord>>;
  /** The last committed step, and the furthest one that ever was committed. */
  committed: number;
  furthest: number;
  /** The step of the last checkpoint; 0 before the first. */
  saved: number;
  /** When this generation was formed or last committed a step. */
  progressAt: number;
  /** Whether this generation has committed a step. */
  hasCommitted: boolean;
  pace: Pace | undefined;
  /** The members of this generation that are done. */
  done: readonly number[];
  /** What went wrong since the furthest step was committed. */
  mishaps: readonly Mishap[];
  /** How many generations broke, and how many workers were lost outside of one, since then. */
  setbacks: number;
  reports: readonly Report[];
  /** Members lost since the last generation was formed. */
  gone: readonly number[];
  /** The fewest workers that have room for the state of the run, and why; undefined: not known. */
  least?: Short | undefined;
  /** When to remind people of what the run waits for; undefined while it does not wait. */
  remindAt: number | undefined;
}

/** How long a step takes: the smoothed mean and the smoothed deviation from it. */
export interface Pace {
  readonly mean: number;
  readonly deviation: number;
}

export interface WorkerState {
  readonly id: number;
  readonly place: string;
  readonly node: string;
  /**
   * starting: not ready yet. ready: in no generation, and may enter one. member: in this
   * generation. leaving: has left it for good, and others may need what it holds. dismissed: told to
   * go. done: all steps are done. lost: may still live, and must be fenced.
   */
  readonly status: "starting" | "ready" | "member" | "leaving" | "dismissed" | "done" | "lost";
  /** When the status began. */
  readonly since: number;
  /** The last sign of life. */
  readonly heard: number;
  readonly doing: Doing;
  /** The file that it waits for, as far as that is known. */
  readonly file?: string | undefined;
  /** When it last made progress, as far as it has said. */
  readonly movedAt: number;
  /** Whether its process was found stopped by a signal after its last sign of life. */
  readonly stopped: boolean;
  /** Whether it was continued after its last sign of life. */
  readonly woken: boolean;
  readonly draining: boolean;
  /** The step whose state it holds. */
  readonly step: number;
  /** The steps that it took part in. */
  readonly steps: number;
  /** How often it was to be killed. */
  readonly kills: number;
}

export interface PlaceRecord {
  /** How many workers in a row were lost here before they had been of use. */
  losses: number;
  /** No worker starts here before. */
  restUntil: number;
  /** Its worker was asked to leave; nothing is started here again. */
  closed: boolean;
}

export interface Mishap {
  readonly worker: number;
  /**
   * own: by an error of its own. consequence: by an error that only says that another worker is
   * lost. crash: its process ended by itself. lost: anything else, which comes from outside.
   */
  readonly kind: "own" | "consequence" | "crash" | "lost";
  /** The generation whose member it was; undefined if it was none. */
  readonly generation: number | undefined;
  readonly code: string | undefined;
  readonly text: string;
}

export interface Report {
  readonly by: number;
  readonly worker: number;
}
