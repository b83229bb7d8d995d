/**
 * The ranks of one node, or some of them, in a run over several nodes. When this group fails the
 * run fails, and the reverse.
 */
import type { LockstepError } from "../errors.ts";
import type {
  BarrierOptions,
  MessageOptions,
  Transport,
  Waiting,
  WaitOptions,
} from "./transport.ts";

export interface Surroundings {
  /**
   * Whether the network has waits to serve. While it has, waits here block the thread for a short
   * time only.
   */
  readonly isBusy: () => boolean;
  /** Called once, when this group has failed. */
  readonly failed: (error: LockstepError) => void;
}

export class LocalGroup implements Transport {
  readonly kind: string;
  readonly rank: number;
  readonly size: number;
  readonly generation: number;
  readonly nodes: readonly (readonly number[])[];
  readonly signal: AbortSignal;
  readonly share: Transport["share"];
  readonly #transport: Transport;
  readonly #surroundings: Surroundings;
  #closed = false;

  constructor(transport: Transport, surroundings: Surroundings) {
    this.kind = transport.kind;
    this.rank = transport.rank;
    this.size = transport.size;
    this.generation = transport.generation;
    this.nodes = transport.nodes;
    this.signal = transport.signal;
    this.share = transport.share;
    this.#transport = transport;
    this.#surroundings = surroundings;
    const failed = () => {
      if (!this.#closed) surroundings.failed(this.signal.reason as LockstepError);
    };
    this.signal.addEventListener("abort", failed, { once: true });
    if (this.signal.aborted) failed();
  }

  send(to: number, bytes: Uint8Array, options: MessageOptions = {}): Waiting {
    return this.#transport.send(to, bytes, this.#beside(options));
  }

  receive(from: number, into: Uint8Array, options: MessageOptions = {}): Waiting {
    return this.#transport.receive(from, into, this.#beside(options));
  }

  barrier(options: BarrierOptions = {}): Waiting {
    return this.#transport.barrier(this.#beside(options));
  }

  async subgroup(ranks: readonly number[]): Promise<Transport> {
    return new LocalGroup(await this.#transport.subgroup(ranks), this.#surroundings);
  }

  abort(reason: unknown): void {
    this.#transport.abort(reason);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#transport.close();
  }

  #beside<T extends WaitOptions>(options: T): T {
    return { ...options, isBusy: this.#surroundings.isBusy };
  }
}
