/** Ranks on any machines, each connected to each. A group lives for one generation; the listener outlives it. */
import { LockstepError } from "../../errors.ts";
import { disseminationBarrier } from "../dissemination.ts";
import {
  checkRank,
  deadlinePassed,
  errorOf,
  Fate,
  peerLost,
  protocolError,
  readReport,
  reportOf,
} from "../failure.ts";
import { eachAlone, MessageSubgroup, SubgroupCounter } from "../subgroup.ts";
import {
  DEFAULT_DEADLINE_MS,
  type GroupOptions,
  type MessageOptions,
  type Transport,
  type Waiting,
  type WaitOptions,
} from "../transport.ts";
import { parseAddress } from "./address.ts";
import { dialPeer } from "./dial.ts";
import { FRAME } from "./frame.ts";
import { newNonce } from "./handshake.ts";
import type { TcpListener } from "./listener.ts";
import { Peer } from "./peer.ts";
import { withResolvers } from "./resolvers.ts";

export interface TcpOptions extends GroupOptions {
  readonly listener: TcpListener;
  /** The address of each rank's listener, by rank. */
  readonly addresses: readonly string[];
  /** A name for the group, the same on all ranks; `run` unless told. */
  readonly group?: string;
  /** Streams for each direction of each pair; 2 unless told. */
  readonly streams?: number;
  /** A rank that is silent for so long is lost; 10 s unless told. */
  readonly silenceMs?: number;
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

/** Connects to all other ranks. Rejects with UNAUTHORIZED, PROTOCOL, ADDRESS, DEADLINE, or the signal's reason. */
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
  readonly machines: readonly (readonly number[])[];
  readonly share = undefined;
  readonly #options: TcpOptions;
  readonly #fate = new Fate();
  readonly #peers: readonly Peer[];
  readonly #pending = new Set<Pending>();
  readonly #subgroups = new SubgroupCounter();
  readonly #deadlineMs: number;
  readonly #silenceMs: number;
  readonly #streams: number;
  readonly #onAbort = () => this.abort(this.#options.signal?.reason);
  #timer: NodeJS.Timeout | undefined;
  #pingedAt = 0;
  #closed = false;

  constructor(options: TcpOptions) {
    this.#options = options;
    this.rank = options.rank;
    this.size = options.size;
    this.generation = options.generation ?? 0;
    this.machines = eachAlone(options.size);
    this.#deadlineMs = options.deadlineMs ?? DEFAULT_DEADLINE_MS;
    this.#silenceMs = options.silenceMs ?? 10_000;
    this.#streams = options.streams ?? 2;
    this.#peers = Array.from(
      { length: this.size },
      (_, peer) =>
        new Peer({
          failed: (what) => this.#fail(protocolError(peer, what)),
          lost: (why) => this.#fail(peerLost(peer, why)),
          left: () => this.#left(peer),
          reported: (report) => this.#end(errorOf(readReport(report, peer))),
        }),
    );
    options.signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  get signal(): AbortSignal {
    return this.#fate.signal;
  }

  async connect(): Promise<void> {
    const { listener, group = "run" } = this.#options;
    let stopServing: (() => void) | undefined;
    try {
      const { promise: admitted, admit } = this.#admissions();
      stopServing = listener.serve(group, this.generation, admit);
      await Promise.all([this.#dialAll(group), admitted]);
      this.#fate.check();
    } catch (error) {
      if (error instanceof LockstepError) this.#fail(error);
      await this.close();
      throw this.#withHint(error, listener, group);
    } finally {
      stopServing?.();
    }
    for (const peer of this.#peers) peer.heardAt = performance.now();
    this.#timer = setInterval(() => this.#tick(), TICK_MS).unref();
  }

  send(to: number, bytes: Uint8Array, options: MessageOptions = {}): Waiting {
    checkRank(to, this.size);
    this.#check(to);
    const peer = this.#peers[to] as Peer;
    return this.#wait(to, `sending ${bytes.byteLength} bytes`, options, (done) =>
      peer.send(options.channel ?? 0, bytes, done),
    );
  }

  receive(from: number, into: Uint8Array, options: MessageOptions = {}): Waiting {
    checkRank(from, this.size);
    this.#fate.check();
    const peer = this.#peers[from] as Peer;
    const waiting = this.#wait(from, `receiving ${into.byteLength} bytes`, options, (done) =>
      peer.receive(options.channel ?? 0, into, done),
    );
    if (waiting !== undefined && peer.hasLeft) this.#left(from);
    return waiting;
  }

  barrier(options: WaitOptions = {}): Waiting {
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
    if (failed) return;
    for (const peer of this.#peers) {
      peer.tell(FRAME.bye);
      peer.end();
    }
  }

  /** Calls `start`; if that says it is not over, waits until it is, or the group fails, or time is up. */
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

  /** A rank that does not come may have been turned away. */
  #withHint(error: unknown, listener: TcpListener, group: string): unknown {
    if (!(error instanceof LockstepError) || error.code === "UNAUTHORIZED") return error;
    const { code, message, fields } = error;
    if (!listener.hasRefused(group, this.generation, Number(fields["peer"]))) return error;
    const hint = "A worker that called itself so was refused: it has another token.";
    return new LockstepError(code, message, { hint, fields, cause: error });
  }

  async #dialAll(group: string): Promise<void> {
    const { listener, addresses } = this.#options;
    const dials: Promise<void>[] = [];
    for (let peer = 0; peer < this.size; peer++) {
      if (peer === this.rank) continue;
      const address = parseAddress(addresses[peer] ?? "");
      for (let stream = 0; stream < this.#streams; stream++) {
        const hello = {
          group,
          generation: this.generation,
          size: this.size,
          from: this.rank,
          to: peer,
          stream,
          nonce: newNonce(),
        };
        const { token, tls } = listener;
        const dialed = dialPeer({
          address,
          token,
          tls,
          hello,
          deadlineMs: this.#deadlineMs,
          signal: this.signal,
          welcomed: (link) => (this.#peers[peer] as Peer).addInbound(stream, link),
          ...(/^[\d.]+$|:/.test(listener.host) ? { localAddress: listener.host } : {}),
        });
        dials.push(dialed);
      }
    }
    await Promise.all(dials);
  }

  /** Fulfilled when all streams of all peers have come. */
  #admissions() {
    let left = (this.size - 1) * this.#streams;
    const { promise, resolve, reject } = withResolvers();
    this.#fate.onFail(reject);
    const timer = setTimeout(() => {
      const missing = this.#peers.findIndex(
        ({ outbound }, peer) => peer !== this.rank && Object.keys(outbound).length < this.#streams,
      );
      reject(deadlinePassed(missing, "waiting for its connection", this.#deadlineMs));
    }, this.#deadlineMs);
    const ended = promise.finally(() => clearTimeout(timer));
    if (left === 0) resolve();
    const admit: Parameters<TcpListener["serve"]>[2] = (hello, link) => {
      const { size, from, to, stream } = hello;
      if (size !== this.size) return `it is a group of ${this.size} ranks, not of ${size}`;
      if (to !== this.rank) return `it is rank ${this.rank}, not ${to}`;
      const peer = from === this.rank ? undefined : this.#peers[from];
      if (peer === undefined) return `there is no rank ${from} to be let in`;
      if (stream >= this.#streams) return `it uses ${this.#streams} streams`;
      if (peer.outbound[stream] !== undefined) return `rank ${from} is here already`;
      peer.addOutbound(stream, link);
      left -= 1;
      if (left === 0) resolve();
      return undefined;
    };
    return { promise: ended, admit };
  }

  #check(peer: number): void {
    this.#fate.check();
    if ((this.#peers[peer] as Peer).hasLeft) this.#left(peer, true);
    this.#fate.check();
  }

  /** A rank has left in order: a failure only for who still wants something of it. */
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
      for (const peer of this.#peers) peer.tell(FRAME.ping);
    }
    for (const [rank, peer] of this.#peers.entries()) {
      if (rank === this.rank || peer.hasLeft || now - peer.heardAt < this.#silenceMs) continue;
      return this.#fail(peerLost(rank, `it was silent for ${Math.round(this.#silenceMs)} ms`));
    }
  }

  /** Fails here and tells the others. */
  #fail(error: LockstepError): void {
    if (this.#fate.error !== undefined) return;
    const report = Buffer.from(JSON.stringify(reportOf(error, this.rank)));
    for (const peer of this.#peers) peer.tell(FRAME.abort, report);
    this.#end(error);
  }

  #end(error: LockstepError): void {
    if (!this.#fate.fail(error)) return;
    clearInterval(this.#timer);
    for (const { reject } of this.#pending) reject(error);
    this.#pending.clear();
    if (this.#closed) return;
    for (const peer of this.#peers) peer.end();
  }
}
