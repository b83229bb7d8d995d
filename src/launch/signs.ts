/** Signs of life of the workers of this machine: beats of an event loop, or processor time used. */
import { processSign } from "../transport/index.ts";
import type { WorkerProcess } from "./process.ts";

export class Signs {
  readonly #beats = new Set<number>();
  readonly #last = new Map<number, string>();

  beat(worker: number): void {
    this.#beats.add(worker);
  }

  /** The workers that have shown one since the last call. */
  take(workers: ReadonlyMap<number, WorkerProcess>): number[] {
    for (const [id, { pid }] of workers) {
      const sign = pid === undefined ? undefined : processSign(pid);
      if (sign !== undefined && sign !== this.#last.get(id)) this.#beats.add(id);
      if (sign !== undefined) this.#last.set(id, sign);
    }
    const found = [...this.#beats];
    this.#beats.clear();
    return found;
  }
}
