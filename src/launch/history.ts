/** Keeps what happens to the workers of a run: who was lost, who came, how long each loss cost. */
import type { Action, Generation } from "../membership/index.ts";
import type { History, RunEvent } from "../telemetry/index.ts";

/** The most recoveries that are kept. */
const MOST = 1000;

export class HistoryKeeper {
  readonly #now: () => number;
  readonly #lost = new Set<number>();
  #lostBefore = 0;
  /** The workers that were in a generation. */
  readonly #seen = new Set<number>();
  readonly #recoverySeconds: number[] = [];
  #joined = 0;
  #generations = 0;
  #stepsRepeated = 0;
  /** The last committed step that the run has not gone back behind. */
  #committed = 0;
  /** When the first loss was noticed that no committed step has followed. */
  #lostAt: number | undefined;

  /** @param now milliseconds */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** Goes on with what an earlier launcher has counted, and its last generation. */
  resume(history: History, { members, step }: Generation): void {
    this.#committed = step;
    const { workersLost, workersJoined, generations, stepsRepeated, recoverySeconds } = history;
    this.#lostBefore = workersLost;
    [this.#joined, this.#generations, this.#stepsRepeated] = [
      workersJoined,
      generations,
      stepsRepeated,
    ];
    this.#recoverySeconds.push(...recoverySeconds);
    for (const { worker } of members) this.#seen.add(worker);
  }

  /** Takes an action of the membership. Returns whether the history has changed. */
  take(action: Action): boolean {
    if (action.kind === "tell" && action.about === "lost" && action.worker !== undefined) {
      this.#lost.add(action.worker);
      // A worker that was in no generation is no loss to a step.
      if (this.#seen.has(action.worker)) this.#lostAt ??= this.#now();
      return true;
    }
    if (action.kind !== "form") return false;
    for (const { worker } of action.generation.members) {
      if (!this.#seen.has(worker) && this.#generations > 0) this.#joined += 1;
      this.#seen.add(worker);
    }
    this.#generations = action.generation.number;
    return true;
  }

  /** Whether the worker was in a generation. */
  hasSeen(worker: number): boolean {
    return this.#seen.has(worker);
  }

  /** Takes what the leading worker tells. Returns whether the history has changed. */
  hear(event: RunEvent): boolean {
    switch (event.type) {
      case "started":
        return this.#began(event.firstStep);
      case "step":
        return this.#hasCommitted(event.step);
      case "repeated":
        this.#stepsRepeated += 1;
        return true;
      default:
        return false;
    }
  }

  /** The run goes on from disk after this step. What was committed since is made again. */
  #began(step: number): boolean {
    const repeated = Math.max(0, this.#committed - step);
    this.#stepsRepeated += repeated;
    this.#committed = step;
    return repeated > 0;
  }

  #hasCommitted(step: number): boolean {
    this.#committed = Math.max(this.#committed, step);
    if (this.#lostAt === undefined) return false;
    this.#recoverySeconds.push((this.#now() - this.#lostAt) / 1000);
    if (this.#recoverySeconds.length > MOST) this.#recoverySeconds.shift();
    this.#lostAt = undefined;
    return true;
  }

  get history(): History {
    return {
      workersLost: this.#lostBefore + this.#lost.size,
      workersJoined: this.#joined,
      generations: this.#generations,
      stepsRepeated: this.#stepsRepeated,
      recoverySeconds: [...this.#recoverySeconds],
    };
  }
}
