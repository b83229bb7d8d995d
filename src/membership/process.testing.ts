/** A worker of a simulated run. */

export interface Process {
  readonly id: number;
  readonly place: string;
  isAlive: boolean;
  isStopped: boolean;
  /** It lives, and computes something that does not end. */
  isHung: boolean;
  /** When it last made progress. */
  movedAt: number;
  /** Nothing that it says is taken any more. */
  isRefused: boolean;
  /** The generation that it computes in; undefined after it has left one. */
  generation: number | undefined;
  lastGeneration: number;
  step: number;
  leavesAfterStep: boolean;
  /** What it was told while it stood still. */
  inbox: (() => void)[];
}

export function newProcess(id: number, place: string, now: number): Process {
  return {
    id,
    place,
    isAlive: true,
    isStopped: false,
    isHung: false,
    movedAt: now,
    isRefused: false,
    generation: undefined,
    lastGeneration: 0,
    step: 0,
    leavesAfterStep: false,
    inbox: [],
  };
}
