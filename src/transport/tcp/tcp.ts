/**
 * A transport between ranks on any nodes, connected over TCP. A group lives for one generation; the
 * listener outlives it.
 */
import { LockstepError } from "../../errors.ts";
import type { TcpListener } from "../../net/index.ts";
import {
  checkRank,
  deadlinePassed,
  errorOf,
  Fate,
  FRAME,
  LINGER_MS,
  peerLost,
  protocolError,
  readReport,
  reportOf,
  withResolvers,
} from "../../net/index.ts";
import { disseminationBarrier } from "../dissemination.ts";
import { eachAlone, MessageSubgroup, SubgroupCounter } from "../subgroup.ts";
import {
  type BarrierOptions,
  DEFAULT_DEADLINE_MS,
  type GroupOptions,
  type MessageOptions,
  type Transport,
  type Waiting,
  type WaitOptions,
} from "../transport.ts";
import { admissions, dialAll, type Meeting } from "./meet.ts";
import { Peer, type PeerEvents } from "./peer.ts";

export interface TcpOptions extends GroupOptions {
  readonly listener: TcpListener;
  /** The address of each rank's listener, by rank. */
  readonly addresses: readonly string[];
  /** The name of the group, the same on all ranks. Default: `run`. */
  readonly group?: string;
  /** The streams in each direction of each pair. Default: 2. */
  readonly streams?: number;
  /**
   * The ranks to connect to; they must name this rank too. Messages go to no other rank. Default:
   * all others.
   */
  readonly peers?: readonly number[];
  /** Milliseconds after which a silent rank is lost. Default: 10 s. */
  readonly silenceMs?: number;
  /**
   * Milliseconds in which the others must be reached, if all are known to listen. Default: the
   * deadline.
   */
  readonly reachMs?: number;
}

interface Pending {
  readonly peer: number;
  readonly doing: string;
  readonly deadlineAt: number;
  readonly deadlineMs: number;
  readonly reject: (error: unknown) => void;
}

const TICK_MS = 25;
const PINGS_PER_SILENCE = 4;

/**
 * Connects to all other ranks, or to some. Rejects with UNAUTHORIZED, PROTOCOL, ADDRESS, DEADLINE,
 * or the signal's reason.
 */
export async function joinTcp(options: TcpOptions): Promise<Transport> {
  checkRank(options.rank, options.size);
  options.signal?.throwIfAborted();
  const transport = new TcpTransport(options);
  await transport.connect();
  return transport;
}

class TcpTransport implements Transport {
  readonly kind = "tcp";
  readonly rank: number;
  readonly size: number;
  readonly generation: number;
  readonly nodes: readonly (readonly number[])[];
  readonly share = undefined;
  readonly #options: TcpOptions;
  readonly #fate = new Fate();
  /** The connected peers by rank. */
  readonly #peers: ReadonlyMap<number, Peer>;
  readonly #pending = new Set<Pending>();
  readonly #subgroups = new SubgroupCounter();
  readonly #deadlineMs: number;
  readonly #silenceMs: number;
  readonly #streams: number;
  /** Whether every rank is connected to every other. */
  readonly #isWhole: boolean;
  readonly #onAbort = () => this.abort(this.#options.signal?.reason);
  #timer: NodeJS.Timeout | undefined;
  #pingedAt = 0;
  #closed = false;

  constructor(options: TcpOptions) {
    this.#options = options;
    this.rank = options.rank;
    this.size = options.size;
    this.generation = options.generation ?? 0;
    this.nodes = eachAlone(options.size);
    this.#deadlineMs = options.deadlineMs ?? DEFAULT_DEADLINE_MS;
    this.#silenceMs = options.silenceMs ?? 10_000;
    this.#streams = options.streams ?? 2;
    const everyone = Array.from({ length: this.size }, (_, peer) => peer);
    const wanted = (options.peers ?? everyone).filter((peer) => peer !== this.rank);
    for (const peer of wanted) checkRank(peer, this.size);
    this.#peers = new Map(wanted.map((peer) => [peer, this.#newPeer(peer)]));
    this.#isWhole = wanted.length === this.size - 1;
    options.signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  #newPeer(peer: number): Peer {
    const events: PeerEvents = {
      failed: (what) => this.#fail(protocolError(peer, what)),
      lost: (why) => this.#fail(peerLost(peer, why)),
      left: () => this.#left(peer),
      // The rank that detected the failure has told all ranks that it is connected to. If that is
      // not every rank, each passes the report on.
      reported: (report) => {
        const error = errorOf(readReport(report, peer));
        if (this.#isWhole) this.#end(error);
        else this.#fail(error);
      },
    };
    return new Peer(events, this.#streams);
  }

  get signal(): AbortSignal {
    return this.#fate.signal;
  }

  async connect(): Promise<void> {
    const { listener, group = "run", addresses, reachMs } = this.#options;
    let stopServing: (() => void) | undefined;
    const meeting: Meeting = {
      rank: this.rank,
      size: this.size,
      generation: this.generation,
      group,
      peers: this.#peers,
      streams: this.#streams,
      deadlineMs: this.#deadlineMs,
      reachMs,
      fate: this.#fate,
    };
    try {
      const { admitted, admit } = admissions(meeting, listener);
      stopServing = listener.serve(group, this.generation, admit);
      await Promise.all([dialAll(meeting, listener, addresses), admitted]);
      this.#fate.check();
    } catch (error) {
      if (error instanceof LockstepError) this.#fail(error);
      await this.close();
      throw withHint(error, listener);
    } finally {
      stopServing?.();
    }
    for (const peer of this.#peers.values()) peer.heard();
    this.#timer = setInterval(() => this.#tick(), TICK_MS).unref();
  }

  send(to: number, bytes: Uint8Array, options: MessageOptions = {}): Waiting {
    const peer = this.#peer(to);
    this.#fate.check();
    if (peer.hasLeft) this.#left(to, true);
    this.#fate.check();
    return this.#wait(to, `sending ${bytes.byteLength} bytes`, options, (done) =>
      peer.send(options.channel ?? 0, bytes, done),
    );
  }

  receive(from: number, into: Uint8Array, options: MessageOptions = {}): Waiting {
    const peer = this.#peer(from);
    this.#fate.check();
    const waiting = this.#wait(from, `receiving ${into.byteLength} bytes`, options, (done) =>
      peer.receive(options.channel ?? 0, into, done),
    );
    if (waiting !== undefined && peer.hasLeft) this.#left(from);
    return waiting;
  }

  barrier(options: BarrierOptions = {}): Waiting {
    return disseminationBarrier(this, options);
  }

  async subgroup(ranks: readonly number[]): Promise<Transport> {
    return new MessageSubgroup(this, ranks, this.#subgroups);
  }

  abort(reason: unknown): void {
    this.#fail(errorOf(reportOf(reason, this.rank)));
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#timer);
    this.#options.signal?.removeEventListener("abort", this.#onAbort);
    const failed = this.#fate.error !== undefined;
    this.#end(new LockstepError("ABORTED", "This rank has left the group."));
    if (!failed) {
      for (const peer of this.#peers.values()) peer.tell(FRAME.bye);
    }
    await this.#heardOut();
  }

  /**
   * Waits until the others have read what this rank told them, because the process may end
   * afterwards. A rank that is lost reads nothing.
   */
  async #heardOut(): Promise<void> {
    const lost = this.#fate.error?.fields["peer"];
    const others = [...this.#peers].filter(([rank]) => rank !== lost);
    const { promise: late, resolve: giveUp } = withResolvers();
    const timer = setTimeout(giveUp, LINGER_MS);
    await Promise.race([Promise.all(others.map(([, peer]) => peer.end())), late]);
    clearTimeout(timer);
  }

  /**
   * Calls `start`. If the wait is not over then, waits until it is, or the group fails, or the
   * deadline passes.
   */
  #wait(
    peer: number,
    doing: string,
    { deadlineMs = this.#deadlineMs }: WaitOptions,
    start: (done: () => void) => boolean,
  ): Waiting {
    let finish: (() => void) | undefined;
    let finished = false;
    const atOnce = start(() => {
      finished = true;
      finish?.();
    });
    this.#fate.check();
    if (atOnce || finished) return undefined;
    return new Promise((resolve, reject) => {
      const deadlineAt = performance.now() + deadlineMs;
      const pending: Pending = { peer, doing, deadlineAt, deadlineMs, reject };
      this.#pending.add(pending);
      finish = () => {
        this.#pending.delete(pending);
        resolve();
      };
    });
  }

  #peer(rank: number): Peer {
    checkRank(rank, this.size);
    const peer = this.#peers.get(rank);
    if (peer !== undefined) return peer;
    throw new LockstepError(
      "INVALID_OPTION",
      `Rank ${this.rank} has no connection to rank ${rank}.`,
    );
  }

  /**
   * Handles a rank that has left in order. It is a failure only if something still waits for it.
   */
  #left(peer: number, wanted = false): void {
    const waits = wanted || [...this.#pending].some((pending) => pending.peer === peer);
    if (waits) this.#fail(peerLost(peer, "it has left the group"));
  }

  #tick(): void {
    const now = performance.now();
    for (const { deadlineAt, peer, doing, deadlineMs } of this.#pending) {
      if (now > deadlineAt) return this.#fail(deadlinePassed(peer, doing, deadlineMs));
    }
    if (now - this.#pingedAt > this.#silenceMs / PINGS_PER_SILENCE) {
      this.#pingedAt = now;
      for (const peer of this.#peers.values()) peer.tell(FRAME.ping);
    }
    for (const peer of this.#peers.values()) peer.checkSilence(this.#silenceMs);
  }

  /** Fails the group here and tells the others. */
  #fail(error: LockstepError): void {
    if (this.#fate.error !== undefined) return;
    const report = Buffer.from(JSON.stringify(reportOf(error, this.rank)));
    for (const peer of this.#peers.values()) peer.tell(FRAME.abort, report);
    this.#end(error);
  }

  #end(error: LockstepError): void {
    if (!this.#fate.fail(error)) return;
    clearInterval(this.#timer);
    for (const { reject } of this.#pending) reject(error);
    this.#pending.clear();
    if (this.#closed) return;
    for (const peer of this.#peers.values()) void peer.end();
  }
}

/** Adds the hint that the missing rank may have been refused. */
function withHint(error: unknown, { hasRefused }: TcpListener): unknown {
  if (!(error instanceof LockstepError) || error.code !== "DEADLINE" || !hasRefused) return error;
  const { code, message, fields } = error;
  const hint = "A worker that connected here was refused, because it has a different token.";
  return new LockstepError(code, message, { hint, fields, cause: error });
}
