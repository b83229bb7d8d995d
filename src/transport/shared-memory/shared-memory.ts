/**
 * A transport between processes of one node, or threads of one process. Messages go through
 * mailboxes, barriers through flags, and peers read and write memory in place. Shared memory loses
 * its name as soon as every rank has mapped it.
 */
import { LockstepError } from "../../errors.ts";
import type { Memory } from "../../memory/index.ts";
import {
  checkRank,
  errorOf,
  Fate,
  peerLost,
  protocolError,
  readReport,
  reportOf,
} from "../../net/index.ts";
import { checkSubgroup, SubgroupCounter } from "../subgroup.ts";
import {
  type BarrierOptions,
  DEFAULT_DEADLINE_MS,
  type MessageOptions,
  type SharedRegion,
  type Transport,
  type Waiting,
  type WaitOptions,
} from "../transport.ts";
import { type Control, LEFT } from "./control.ts";
import { createSleeper, type Sleeper } from "./futex.ts";
import { type Joined, joinControl } from "./join.ts";
import { Pulse } from "./liveness.ts";
import { MailboxReader, Outbox } from "./mailbox.ts";
import type { JoinOptions } from "./options.ts";
import { shareByName } from "./share.ts";
import { patienceOf, Waits } from "./waits.ts";

const DEFAULT_SILENCE_MS = 10_000;

/** Joins the other ranks. @throws DEADLINE naming a missing rank, PROTOCOL, OUT_OF_MEMORY */
export async function joinSharedMemory(options: JoinOptions): Promise<Transport> {
  checkRank(options.rank, options.size);
  options.signal?.throwIfAborted();
  return new SharedMemoryTransport(options, await joinControl(options));
}

class SharedMemoryTransport implements Transport {
  readonly kind = "shared-memory";
  readonly rank: number;
  readonly size: number;
  readonly generation: number;
  readonly nodes: readonly (readonly number[])[];
  readonly #options: JoinOptions;
  readonly #control: Control;
  readonly #pulse: Pulse;
  readonly #sleeper: Sleeper = createSleeper();
  readonly #fate = new Fate();
  readonly #waits: Waits;
  readonly #outboxes: readonly Outbox[];
  readonly #readers: readonly MailboxReader[];
  readonly #regions = new Set<SharedRegion>();
  readonly #subgroups = new Set<Transport>();
  readonly #counter = new SubgroupCounter();
  readonly #others: readonly number[];
  readonly #deadlineMs: number;
  readonly #name = (rank: number): number => this.#options.names?.[rank] ?? rank;
  readonly #onAbort = () => this.abort(this.#options.signal?.reason);
  #barriers = 0;
  #closed = false;

  constructor(options: JoinOptions, { control, peers }: Joined) {
    const { rank, size } = options;
    this.rank = rank;
    this.size = size;
    this.generation = options.generation ?? 0;
    this.#options = options;
    this.#deadlineMs = options.deadlineMs ?? DEFAULT_DEADLINE_MS;
    this.#control = control;
    this.#pulse = new Pulse(control, rank, peers, options.silenceMs ?? DEFAULT_SILENCE_MS);
    const everyone = Array.from({ length: size }, (_, peer) => peer);
    this.nodes = [everyone];
    this.#others = everyone.filter((peer) => peer !== rank);
    this.#outboxes = everyone.map((peer) => new Outbox(control, rank, peer));
    this.#readers = everyone.map(
      (peer) =>
        new MailboxReader(control, peer, rank, (what) =>
          this.#fail(protocolError(this.#name(peer), what)),
        ),
    );
    this.#waits = new Waits({
      mode: options.wait ?? "block",
      ...patienceOf(size),
      yield: () => this.#sleeper.yield(),
      pump: () => this.#pump(),
      sleep: (ready, timeoutMs) => this.#sleep(ready, timeoutMs),
      checkPeers: (isWanted) => this.#checkPeers(isWanted),
      fail: (error) => this.#fail(error),
    });
    options.signal?.addEventListener("abort", this.#onAbort, { once: true });
    if (options.signal?.aborted === true) this.#onAbort();
  }

  get signal(): AbortSignal {
    return this.#fate.signal;
  }

  send(to: number, bytes: Uint8Array, options: MessageOptions = {}): Waiting {
    checkRank(to, this.size);
    this.#check();
    const outbox = this.#outboxes[to] as Outbox;
    let sent = false;
    outbox.push(options.channel ?? 0, bytes, () => {
      sent = true;
    });
    this.#pumpOut(to);
    return this.#wait(() => sent, to, `sending ${bytes.byteLength} bytes`, options);
  }

  receive(from: number, into: Uint8Array, options: MessageOptions = {}): Waiting {
    checkRank(from, this.size);
    this.#check();
    const { channel = 0 } = options;
    const reader = this.#readers[from] as MailboxReader;
    this.#pumpIn(from);
    const early = reader.inbox.takeEarly(channel);
    if (early !== undefined) {
      if (early.byteLength !== into.byteLength) {
        const what = `sent ${early.byteLength} bytes where ${into.byteLength} were expected`;
        this.#fail(protocolError(this.#name(from), what));
        this.#check();
      }
      into.set(early);
      return undefined;
    }
    let received = false;
    const done = () => {
      received = true;
    };
    reader.inbox.post(channel, { into, done, failed: done });
    const ready = () => {
      if (!received) this.#pumpIn(from);
      return received;
    };
    return this.#wait(ready, from, `receiving ${into.byteLength} bytes`, options);
  }

  barrier(options: BarrierOptions = {}): Waiting {
    this.#check();
    const control = this.#control;
    const { words } = control;
    this.#barriers = (this.#barriers + 1) | 0;
    const mine = this.#barriers;
    Atomics.store(words, control.barrier(this.rank), mine);
    for (const peer of this.#others) this.#ring(peer);
    const isMissing = (peer: number) =>
      ((Atomics.load(words, control.barrier(peer)) - mine) | 0) < 0;
    const missing = () => this.#others.find(isMissing);
    const gone = () => this.#others.find((peer) => this.#hasLeft(peer) && isMissing(peer));
    return this.#wait(
      () => missing() === undefined,
      () => gone() ?? missing() ?? this.rank,
      "at a barrier",
      options,
    );
  }

  readonly share = async (memory: Memory): Promise<SharedRegion> => {
    const { memories, close } = await shareByName(this, memory);
    const region: SharedRegion = {
      memories,
      close: () => {
        this.#regions.delete(region);
        close();
      },
    };
    this.#regions.add(region);
    return region;
  };

  /** When a subgroup fails, this group does: its ranks see here whether they go on in another. */
  async subgroup(ranks: readonly number[]): Promise<Transport> {
    checkSubgroup(this, ranks);
    this.#check();
    const id = this.#counter.next(ranks).toString(36);
    const joined = joinSharedMemory({
      ...this.#options,
      signal: this.signal,
      name: `${this.#options.name}-${id}`.slice(-80),
      rank: ranks.indexOf(this.rank),
      size: ranks.length,
      names: ranks.map(this.#name),
      awaiting: (peer) => {
        this.#checkPeers((missing) => missing === ranks[peer]);
        this.#check();
      },
      failed: (error) => this.#fail(error),
    });
    joined.then(
      (own) => this.#subgroups.add(own),
      (error: unknown) => this.abort(error),
    );
    return joined;
  }

  abort(reason: unknown): void {
    if (!this.#closed) this.#fail(errorOf(reportOf(reason, this.#name(this.rank))));
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const subgroup of this.#subgroups) void subgroup.close();
    this.#pulse.close();
    this.#options.signal?.removeEventListener("abort", this.#onAbort);
    const left = new LockstepError("ABORTED", "This rank has left the group.");
    this.#fate.fail(left);
    this.#waits.failAll(left);
    Atomics.store(this.#control.words, this.#control.state(this.rank), LEFT);
    for (const peer of this.#others) this.#ring(peer);
    for (const region of this.#regions) region.close();
    this.#control.memory.close();
  }

  #wait(
    ready: () => boolean,
    peer: number | (() => number),
    doing: string,
    { deadlineMs = this.#deadlineMs, isBusy }: WaitOptions,
  ): Waiting {
    const from = typeof peer === "number" ? () => peer : peer;
    const named = () => this.#name(from());
    const alone = typeof peer !== "number";
    return this.#waits.wait({ ready, from, peer: named, doing, deadlineMs, alone, isBusy });
  }

  #pump(): void {
    for (const peer of this.#others) {
      this.#pumpOut(peer);
      this.#pumpIn(peer);
    }
  }

  #pumpOut(peer: number): void {
    const outbox = this.#outboxes[peer] as Outbox;
    if (!outbox.idle && outbox.pump()) this.#ring(peer);
  }

  #pumpIn(peer: number): void {
    if ((this.#readers[peer] as MailboxReader).pump()) this.#ring(peer);
  }

  #ring(rank: number): void {
    const { words } = this.#control;
    if (Atomics.load(words, this.#control.sleeping(rank)) === 0) return;
    const doorbell = this.#control.doorbell(rank);
    Atomics.add(words, doorbell, 1);
    this.#sleeper.wakeAll(this.#control.address(doorbell));
  }

  /** Sleeps. The flag is set before the last look, so whoever changes something later sees it. */
  #sleep(ready: () => boolean, timeoutMs: number): void {
    const control = this.#control;
    const { words } = control;
    const doorbell = control.doorbell(this.rank);
    const seen = Atomics.load(words, doorbell);
    Atomics.store(words, control.sleeping(this.rank), 1);
    if (!ready() && !control.hasFailed) {
      this.#sleeper.wait(control.address(doorbell), seen, timeoutMs);
    }
    Atomics.store(words, control.sleeping(this.rank), 0);
  }

  #check(): void {
    if (this.#closed || this.#control.hasFailed) this.#readFailure();
    this.#fate.check();
  }

  /** Fails if a rank that is waited for is dead or has left. */
  #checkPeers(isWanted: (peer: number) => boolean): void {
    this.#readFailure();
    if (this.#fate.error !== undefined) return;
    const now = performance.now();
    for (const peer of this.#others) {
      if (this.#hasLeft(peer)) {
        if (!isWanted(peer)) continue;
        return this.#lose(peer, "it has left the group");
      }
      const trouble = this.#pulse.trouble(peer, now);
      if (trouble !== undefined) return this.#lose(peer, trouble);
    }
  }

  /** A rank that fails reports the cause before it ends, so the report is looked for once more. */
  #lose(peer: number, why: string): void {
    this.#readFailure();
    if (this.#fate.error === undefined) this.#fail(peerLost(this.#name(peer), why));
  }

  #hasLeft(peer: number): boolean {
    return Atomics.load(this.#control.words, this.#control.state(peer)) === LEFT;
  }

  #readFailure(): void {
    if (this.#closed || this.#fate.error !== undefined || !this.#control.hasFailed) return;
    this.#end(errorOf(readReport(this.#control.readFailure(), this.#name(this.rank))));
  }

  #fail(error: LockstepError): void {
    if (this.#closed || this.#fate.error !== undefined) return;
    const first = this.#control.writeFailure(reportOf(error, this.#name(this.rank)));
    if (!first) this.#readFailure();
    this.#end(error);
    for (const peer of this.#others) this.#ring(peer);
  }

  #end(error: LockstepError): void {
    if (!this.#fate.fail(error)) return;
    this.#options.failed?.(error);
    this.#waits.failAll(error);
  }
}
