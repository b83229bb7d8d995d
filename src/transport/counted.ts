/** A transport that counts its waits, so that it can be seen whether a rank only waits for others. */
import type { Memory } from "../memory/index.ts";
import type {
  BarrierOptions,
  MessageOptions,
  SharedRegion,
  Transport,
  Waiting,
} from "./transport.ts";

/** How many waits have begun, and how many of them have ended. */
export interface WaitCounts {
  begun: number;
  ended: number;
}

/** @param counts are kept up to date, also for the subgroups of the transport */
export function countWaits(transport: Transport, counts: WaitCounts): Transport {
  return new CountedTransport(transport, counts);
}

class CountedTransport implements Transport {
  readonly kind: string;
  readonly rank: number;
  readonly size: number;
  readonly generation: number;
  readonly nodes: readonly (readonly number[])[];
  readonly signal: AbortSignal;
  readonly share: ((memory: Memory) => Promise<SharedRegion>) | undefined;
  readonly #inner: Transport;
  readonly #counts: WaitCounts;

  constructor(inner: Transport, counts: WaitCounts) {
    const { kind, rank, size, generation, nodes, signal, share } = inner;
    this.kind = kind;
    this.rank = rank;
    this.size = size;
    this.generation = generation;
    this.nodes = nodes;
    this.signal = signal;
    this.share = share && ((memory) => this.#counted(share(memory)));
    this.#inner = inner;
    this.#counts = counts;
  }

  send(to: number, bytes: Uint8Array, options?: MessageOptions): Waiting {
    return this.#wait(this.#inner.send(to, bytes, options));
  }

  receive(from: number, into: Uint8Array, options?: MessageOptions): Waiting {
    return this.#wait(this.#inner.receive(from, into, options));
  }

  barrier(options?: BarrierOptions): Waiting {
    return this.#wait(this.#inner.barrier(options));
  }

  async subgroup(ranks: readonly number[]): Promise<Transport> {
    return countWaits(await this.#counted(this.#inner.subgroup(ranks)), this.#counts);
  }

  abort(reason: unknown): void {
    this.#inner.abort(reason);
  }

  close(): Promise<void> {
    return this.#inner.close();
  }

  #wait(waiting: Waiting): Waiting {
    if (waiting !== undefined) return this.#counted(waiting);
    this.#counts.begun += 1;
    this.#counts.ended += 1;
    return undefined;
  }

  async #counted<Result>(waiting: Promise<Result>): Promise<Result> {
    this.#counts.begun += 1;
    try {
      return await waiting;
    } finally {
      this.#counts.ended += 1;
    }
  }
}
