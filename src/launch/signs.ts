/** Signs of life of workers of this machine: beats of an event loop, or processor time used. */
import { BEAT_MS } from "../membership/index.ts";
import { processSign } from "../transport/index.ts";
import type { WorkerProcess } from "./process.ts";

/**
 * @param alive the workers that have shown one since the last call
 * @param stopped those whose process is stopped by a signal
 */
export type OnSigns = (alive: readonly number[], stopped: readonly number[]) => void;

export class Signs {
  readonly #workers: ReadonlyMap<number, WorkerProcess>;
  readonly #onSigns: OnSigns;
  readonly #timer: NodeJS.Timeout;
  readonly #beats = new Set<number>();
  readonly #last = new Map<number, string>();

  /** @param workers those that live, by number */
  constructor(workers: ReadonlyMap<number, WorkerProcess>, onSigns: OnSigns) {
    this.#workers = workers;
    this.#onSigns = onSigns;
    this.#timer = setInterval(() => this.#look(), BEAT_MS);
  }

  /** The worker says that it lives. */
  beat(worker: number): void {
    this.#beats.add(worker);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    for (const number of this.#last.keys()) {
      if (!this.#workers.has(number)) this.#last.delete(number);
    }
    for (const [number, { pid }] of this.#workers) {
      const sign = pid === undefined ? undefined : processSign(pid);
      if (sign !== undefined && sign !== this.#last.get(number)) this.#beats.add(number);
      if (sign !== undefined) this.#last.set(number, sign);
    }
    const alive = [...this.#beats].filter((number) => this.#workers.has(number));
    this.#beats.clear();
    const all = [...this.#workers];
    const stopped = all.filter(([, { isStopped }]) => isStopped).map(([number]) => number);
    if (alive.length > 0 || stopped.length > 0) this.#onSigns(alive, stopped);
  }
}
