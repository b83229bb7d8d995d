/**
 * What decisions ask of all workers at once, kept up to date from decision to decision, so that
 * none of them reads thousands of workers for the sake of one. A roster follows from the workers and
 * the places alone: it is made anew for a state that was read from a disk or that is used twice.
 */
import { assert } from "../errors.ts";
import type { Doing } from "./beats.ts";
import type { Place, WorkerState } from "./types.ts";

type Status = WorkerState["status"];

/** The roster of the workers of a state, until a decision takes it from there. */
const kept = new WeakMap<readonly WorkerState[], Roster>();

export class Roster {
  readonly counts: Record<Status, number> = {
    starting: 0,
    ready: 0,
    member: 0,
    leaving: 0,
    dismissed: 0,
    done: 0,
    lost: 0,
  };
  /** The number of members that wait for others, for files, and of those that are asked to leave. */
  waiting = 0;
  atFiles = 0;
  draining = 0;
  /** The workers that are ready, by the time since which they are. */
  readonly ready = new Map<number, number>();
  readonly places: readonly Place[];
  /** The places without a worker, by index. */
  readonly free = new Map<number, Place>();
  readonly #indexes: ReadonlyMap<string, number>;
  /** The number of workers at each place. */
  readonly #taken = new Map<string, number>();

  constructor(workers: readonly WorkerState[], places: readonly Place[]) {
    this.places = places;
    this.#indexes = new Map(places.map(({ name }, index) => [name, index]));
    for (const index of this.#indexes.values()) this.free.set(index, places[index] as Place);
    for (const worker of workers) this.enter(worker);
    const ready = [...this.ready].sort(([, a], [, b]) => a - b);
    this.ready.clear();
    for (const [id, since] of ready) this.ready.set(id, since);
  }

  isTaken(place: string): boolean {
    return this.#taken.has(place);
  }

  /** Since when as many workers as this have been ready. There must be so many. */
  readySince(count: number): number {
    let [counted, last] = [0, Number.NaN];
    for (const since of this.ready.values()) {
      last = since;
      if (++counted === count) break;
    }
    return last;
  }

  enter(worker: WorkerState): void {
    const { place } = worker;
    this.#count(worker, 1);
    this.#taken.set(place, (this.#taken.get(place) ?? 0) + 1);
    this.free.delete(this.#indexes.get(place) ?? -1);
  }

  leave(worker: WorkerState): void {
    const { place } = worker;
    this.#count(worker, -1);
    const others = (this.#taken.get(place) ?? 0) - 1;
    if (others > 0) this.#taken.set(place, others);
    else {
      this.#taken.delete(place);
      const index = this.#indexes.get(place) ?? -1;
      const known = this.places[index];
      if (known !== undefined) this.free.set(index, known);
    }
  }

  change(before: WorkerState, after: WorkerState): void {
    const { status, since, doing, draining } = before;
    const isSame = status === after.status && since === after.since;
    if (isSame && (status === "ready" || (doing === after.doing && draining === after.draining)))
      return;
    this.#count(before, -1);
    this.#count(after, 1);
  }

  #count({ id, status, since, doing, draining }: WorkerState, by: 1 | -1): void {
    this.counts[status] += by;
    if (status === "member") {
      if (doing === "waiting") this.waiting += by;
      if (isAtFile(doing)) this.atFiles += by;
      if (draining) this.draining += by;
    } else if (status === "ready") {
      // Whoever becomes ready is the last in the map, because time does not go back.
      if (by === 1) this.ready.set(id, since);
      else this.ready.delete(id);
    }
  }
}

export function isAtFile(doing: Doing): doing is "reading" | "writing" | "blocked" {
  return doing === "reading" || doing === "writing" || doing === "blocked";
}

/** Takes the roster of these workers, which the caller changes together with a copy of them. */
export function takeRoster(workers: readonly WorkerState[], places: readonly Place[]): Roster {
  const found = kept.get(workers);
  kept.delete(workers);
  return found?.places === places ? found : new Roster(workers, places);
}

export function keepRoster(workers: readonly WorkerState[], roster: Roster): void {
  const { counts } = roster;
  const all = Object.values(counts).reduce((sum, count) => sum + count, 0);
  assert(all === workers.length, "a roster counts all workers");
  kept.set(workers, roster);
}
