/** Signs of life of workers of this machine: beats of an event loop, or processor time used. */
import { BEAT_MS } from "../membership/index.ts";
import type { Progress } from "../protocol/index.ts";
import { fileOfCall, processSign, processState } from "../transport/index.ts";
import { Blocked } from "./blocked.ts";
import type { WorkerProcess } from "./process.ts";

/**
 * A sign of life. `progress` is what the worker has said since the signs before, or what can be seen
 * of a process that waits for a disk.
 */
export interface Sign {
  readonly worker: number;
  readonly progress?: Progress | undefined;
}

/**
 * @param alive the workers that have shown one since the last call
 * @param stopped those whose process is stopped by a signal
 */
export type OnSigns = (alive: readonly Sign[], stopped: readonly number[]) => void;

export class Signs {
  readonly #workers: ReadonlyMap<number, WorkerProcess>;
  readonly #onSigns: OnSigns;
  readonly #timer: NodeJS.Timeout;
  readonly #beats = new Map<number, Progress>();
  readonly #blocked = new Blocked();
  readonly #last = new Map<number, string>();

  /** @param workers those that live, by number */
  constructor(workers: ReadonlyMap<number, WorkerProcess>, onSigns: OnSigns) {
    this.#workers = workers;
    this.#onSigns = onSigns;
    this.#timer = setInterval(() => this.#look(), BEAT_MS);
  }

  /** The worker says that it lives. */
  beat(worker: number, progress: Progress): void {
    this.#beats.set(worker, progress);
    this.#blocked.clear(worker);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    for (const number of this.#last.keys()) {
      if (this.#workers.has(number)) continue;
      this.#last.delete(number);
      this.#blocked.clear(number);
    }
    const alive: Sign[] = [];
    for (const [worker, { pid }] of this.#workers) {
      const sign = pid === undefined ? undefined : processSign(pid);
      const hasWorked = sign !== undefined && sign !== this.#last.get(worker);
      if (sign !== undefined) this.#last.set(worker, sign);
      const progress = this.#beats.get(worker) ?? this.#seen(worker, pid);
      if (progress !== undefined) alive.push({ worker, progress });
      else if (hasWorked) alive.push({ worker });
    }
    this.#beats.clear();
    const all = [...this.#workers];
    const stopped = all.filter(([, { isStopped }]) => isStopped).map(([number]) => number);
    if (alive.length > 0 || stopped.length > 0) this.#onSigns(alive, stopped);
  }

  #seen(worker: number, pid: number | undefined): Progress | undefined {
    if (pid === undefined) return undefined;
    const [state, now] = [processState(pid), performance.now()];
    return this.#blocked.look(worker, { state, fileOf: () => fileOfCall(pid), now });
  }
}
