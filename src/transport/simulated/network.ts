/**
 * A network inside one process, for tests and for plans of up to 1,024 ranks. Time is virtual: each
 * message takes `latency + bytes / bandwidth`, and a lost one is sent again later. The order of
 * deliveries follows from virtual time and the seed alone, so every run is the same.
 */
import { LockstepError } from "../../errors.ts";
import {
  checkRank,
  deadlinePassed,
  errorOf,
  Fate,
  peerLost,
  protocolError,
  reportOf,
} from "../../net/index.ts";
import { disseminationBarrier } from "../dissemination.ts";
import { Inbox } from "../inbox.ts";
import { eachAlone, MessageSubgroup, SubgroupCounter } from "../subgroup.ts";
import type { BarrierOptions, MessageOptions, Transport, Waiting } from "../transport.ts";
import { DEFAULT_DEADLINE_MS } from "../transport.ts";
import { type Delivery, DeliveryQueue } from "./queue.ts";
import { randomNumbers } from "./random.ts";

export interface NetworkOptions {
  readonly size: number;
  readonly generation?: number;
  /** Virtual microseconds that a message travels. Default: 10. */
  readonly latencyUs?: number;
  /** Virtual bytes per microsecond between two ranks. Default: 1,000 (1 GB/s). */
  readonly bytesPerUs?: number;
  /** The fraction of messages that are lost once and sent again after `retryUs`. Default: 0. */
  readonly loss?: number;
  readonly retryUs?: number;
  /** The largest random delay of a message, in virtual microseconds. Default: 0. */
  readonly jitterUs?: number;
  readonly seed?: number;
  /** Real milliseconds that ranks may wait with no message on its way. Default: 30 s. */
  readonly deadlineMs?: number;
  /** The ranks of each node, each list ascending. Default: every rank is a node of its own. */
  readonly nodes?: readonly (readonly number[])[];
}

export class SimulatedNetwork {
  readonly size: number;
  readonly transports: readonly SimulatedTransport[];
  readonly #options: Required<NetworkOptions>;
  readonly #queue = new DeliveryQueue();
  readonly #random: () => number;
  /** When the last message of each pair arrives, because messages of a pair keep their order. */
  readonly #lastArrival = new Map<number, number>();
  #sent = 0;
  #order = 0;
  #bytes = 0;
  #pumping = false;
  #quietTimer: NodeJS.Timeout | undefined;

  constructor(options: NetworkOptions) {
    this.#options = {
      generation: 0,
      latencyUs: 10,
      bytesPerUs: 1000,
      loss: 0,
      retryUs: 200,
      jitterUs: 0,
      seed: 1,
      deadlineMs: DEFAULT_DEADLINE_MS,
      nodes: eachAlone(options.size),
      ...options,
    };
    this.size = options.size;
    this.#random = randomNumbers(this.#options.seed);
    this.transports = Array.from(
      { length: this.size },
      (_, rank) => new SimulatedTransport(this, rank, this.#options),
    );
  }

  /** Virtual microseconds that have passed on the most advanced rank. */
  get elapsedUs(): number {
    return Math.max(...this.transports.map(({ clock }) => clock));
  }

  get messages(): number {
    return this.#sent;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Kills a rank: it sends nothing more, and the others detect it. */
  kill(rank: number): void {
    this.transports[rank]?.die();
    for (const other of this.transports) {
      if (other.rank !== rank) other.fail(peerLost(rank, "it was killed"));
    }
  }

  /** @internal */
  post(from: SimulatedTransport, to: number, channel: number, bytes?: Uint8Array): void {
    const { latencyUs, bytesPerUs, loss, retryUs, jitterUs } = this.#options;
    const pair = from.rank * this.size + to;
    const length = bytes?.byteLength ?? 0;
    from.clock += length / bytesPerUs;
    let at = from.clock + latencyUs + this.#random() * jitterUs;
    while (this.#random() < loss) at += retryUs;
    at = Math.max(at, this.#lastArrival.get(pair) ?? 0);
    this.#lastArrival.set(pair, at);
    this.#order += 1;
    if (bytes !== undefined) this.#sent += 1;
    this.#bytes += length;
    const order = this.#order;
    this.#queue.push({ at, order, from: from.rank, to, channel, bytes: bytes?.slice() });
    this.pump();
  }

  /**
   * Delivers messages in the order of virtual time, when no rank has anything else to do now.
   *
   * @internal
   */
  pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    setImmediate(() => {
      this.#pumping = false;
      const next = this.#queue.pop();
      if (next !== undefined) {
        this.transports[next.to]?.deliver(next);
        this.pump();
        return;
      }
      this.#quiet();
    });
  }

  /**
   * Called when no message is on its way. Ranks that still wait may wait `deadlineMs` for the ranks
   * that compute.
   */
  #quiet(): void {
    const before = this.#order;
    const { deadlineMs } = this.#options;
    if (this.#quietTimer !== undefined || this.#waiting() === undefined) return;
    this.#quietTimer = setTimeout(() => {
      this.#quietTimer = undefined;
      const waiting = this.#waiting();
      if (waiting === undefined) return;
      if (this.#order !== before) this.#quiet();
      else
        waiting.transport.fail(deadlinePassed(waiting.peer, "waiting for a message", deadlineMs));
    }, deadlineMs).unref();
  }

  #waiting(): { transport: SimulatedTransport; peer: number } | undefined {
    for (const transport of this.transports) {
      const peer = transport.waitsFor();
      if (peer !== undefined) return { transport, peer };
    }
    return undefined;
  }
}

export class SimulatedTransport implements Transport {
  readonly kind = "simulated";
  readonly rank: number;
  readonly size: number;
  readonly generation: number;
  readonly nodes: readonly (readonly number[])[];
  readonly share = undefined;
  /** The rank's time in virtual microseconds. */
  clock = 0;
  /** Called before each message of this rank, with its number: a test can kill the rank there. */
  onMessage: ((message: number) => void) | undefined;
  readonly #network: SimulatedNetwork;
  readonly #fate = new Fate();
  readonly #inboxes: Inbox[];
  readonly #waiting = new Map<object, number>();
  readonly #subgroups = new SubgroupCounter();
  readonly #left = new Set<number>();
  #messages = 0;
  #dead = false;

  constructor(network: SimulatedNetwork, rank: number, options: Required<NetworkOptions>) {
    this.#network = network;
    this.rank = rank;
    this.size = network.size;
    this.generation = options.generation;
    this.nodes = options.nodes;
    this.#inboxes = Array.from({ length: network.size }, () => new Inbox());
  }

  get signal(): AbortSignal {
    return this.#fate.signal;
  }

  send(to: number, bytes: Uint8Array, { channel = 0 }: MessageOptions = {}): Waiting {
    checkRank(to, this.size);
    this.onMessage?.(this.#messages);
    this.#messages += 1;
    if (this.#dead) return new Promise(() => undefined);
    this.#fate.check();
    this.#network.post(this, to, channel, bytes);
    return undefined;
  }

  receive(from: number, into: Uint8Array, { channel = 0 }: MessageOptions = {}): Waiting {
    checkRank(from, this.size);
    if (this.#dead) return new Promise(() => undefined);
    this.#fate.check();
    const inbox = this.#inboxes[from] as Inbox;
    const early = inbox.takeEarly(channel);
    if (early !== undefined) {
      this.#fill(from, into, early);
      return undefined;
    }
    if (this.#left.has(from)) this.#failFor(from);
    this.#fate.check();
    return new Promise((resolve, reject) => {
      const forget = this.#fate.onFail(reject);
      const posted = {
        into,
        done: () => {
          forget();
          this.#waiting.delete(posted);
          resolve();
        },
        failed: reject,
      };
      this.#waiting.set(posted, from);
      inbox.post(channel, posted);
      this.#network.pump();
    });
  }

  barrier(options: BarrierOptions = {}): Waiting {
    return disseminationBarrier(this, options);
  }

  async subgroup(ranks: readonly number[]): Promise<Transport> {
    return new MessageSubgroup(this, ranks, this.#subgroups);
  }

  abort(reason: unknown): void {
    if (this.#dead) return;
    this.fail(errorOf(reportOf(reason, this.rank)));
  }

  async close(): Promise<void> {
    if (this.#dead) return;
    this.#dead = true;
    this.#fate.fail(new LockstepError("ABORTED", "This rank has left the group."));
    for (const { rank } of this.#network.transports) {
      if (rank !== this.rank) this.#network.post(this, rank, 0);
    }
  }

  /** @internal */
  die(): void {
    this.#dead = true;
  }

  /** Fails the group on all ranks. @internal */
  fail(error: LockstepError): void {
    if (this.#dead || !this.#fate.fail(error)) return;
    this.#waiting.clear();
    const report = reportOf(error, this.rank);
    for (const other of this.#network.transports) if (other !== this) other.fail(errorOf(report));
  }

  /**
   * Returns the first rank that something here waits for (or `rank`, if anything waits for it).
   * @internal
   */
  waitsFor(rank?: number): number | undefined {
    if (this.#dead) return undefined;
    return [...this.#waiting.values()].find((peer) => rank === undefined || peer === rank);
  }

  /** @internal */
  deliver({ at, from, channel, bytes }: Delivery): void {
    if (this.#dead) return;
    this.clock = Math.max(this.clock, at);
    if (bytes === undefined) {
      this.#left.add(from);
      if (this.waitsFor(from) !== undefined) this.#failFor(from);
      return;
    }
    const inbox = this.#inboxes[from] as Inbox;
    const posted = inbox.takePosted(channel);
    if (posted === undefined) {
      inbox.keepEarly(channel, bytes);
      return;
    }
    try {
      this.#fill(from, posted.into, bytes);
      posted.done();
    } catch {
      // the group has failed, and the waits have been told
    }
  }

  #failFor(from: number): void {
    this.fail(peerLost(from, "it has left the group"));
  }

  #fill(from: number, into: Uint8Array, bytes: Uint8Array): void {
    if (into.byteLength === bytes.byteLength) {
      into.set(bytes);
      return;
    }
    const what = `sent ${bytes.byteLength} bytes where ${into.byteLength} were expected`;
    const error = protocolError(from, what);
    this.fail(error);
    throw error;
  }
}
