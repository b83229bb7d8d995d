/**
 * A group of ranks that compute together: memory that collectives work on, and collectives prepared once and run
 * many times. All ranks make the same calls in the same order.
 */
import type { AllocateHostOptions, Device, HostBuffer } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import { uniqueName } from "../memory/index.ts";
import { bytesPerElement } from "../tensor/index.ts";
import type { SharedRegion, Transport } from "../transport/index.ts";
import { type Choice, type CostModel, chooseSchedule, DEFAULT_COSTS } from "./cost.ts";
import { checkReduction } from "./reduction.ts";
import { type Algorithm, type Collective, extentOf } from "./request.ts";
import { Runner } from "./runner.ts";
import type { Schedule } from "./schedule.ts";

/** Bytes. */
const STAGING_ALIGN = 4096;

export interface GroupSettings {
  readonly engine: Device;
  readonly transport: Transport;
  /** What things cost here: see `measureCosts`. It must be the same on all ranks. */
  readonly costs?: CostModel;
  /** Takes the choice from the cost model, by kind of collective. */
  readonly algorithms?: Partial<Record<Collective["kind"], Algorithm>>;
  /** Only algorithms whose bits do not depend on the choice; false unless told. */
  readonly canonical?: boolean;
}

/** Where a collective works: `data` is read and written, an all-to-all writes `into`. Offsets in bytes. */
export interface PrepareOptions {
  readonly data: GroupBuffer;
  readonly byteOffset?: number;
  readonly into?: GroupBuffer;
  readonly intoByteOffset?: number;
  readonly algorithm?: Algorithm;
  /** Messages of different channels (not 0) may be under way at the same time; all else runs in the order asked for. */
  readonly channel?: number;
  readonly deadlineMs?: number;
  /** Whether it will run once: then nothing that takes long to prepare is chosen. */
  readonly once?: boolean;
}

export interface Prepared {
  readonly schedule: Schedule;
  /** Estimated microseconds by algorithm. */
  readonly estimates: Choice["estimates"];
  /** Runs of one must not overlap, and all ranks run all in the same order. Rejects with the group's error. */
  run(): Promise<void>;
  close(): void;
}

export class Group {
  readonly transport: Transport;
  readonly engine: Device;
  costs: CostModel;
  readonly #settings: GroupSettings;
  readonly #buffers = new Set<GroupBuffer>();
  /** What the group allocated itself. */
  readonly #owned = new Set<HostBuffer>();
  readonly #prepared = new Set<Prepared>();
  /** What the next run waits for. */
  #last: Promise<unknown> | undefined;

  /** The group owns the transport and closes it; the engine is the caller's. */
  constructor(settings: GroupSettings) {
    this.#settings = settings;
    this.transport = settings.transport;
    this.engine = settings.engine;
    this.costs = settings.costs ?? DEFAULT_COSTS;
  }

  get rank(): number {
    return this.transport.rank;
  }

  get size(): number {
    return this.transport.size;
  }

  /**
   * Zeroed memory that `register` takes: it has a name where the transport shares memory. The caller closes it.
   * @param parts the only bytes of it that this rank will touch
   */
  newMemory(byteLength: number, parts?: AllocateHostOptions["parts"]): HostBuffer {
    const { share } = this.transport;
    return this.engine.allocateHost(
      byteLength,
      share === undefined ? { parts } : { parts, shareAs: uniqueName() },
    );
  }

  /** Whether `register` takes this memory: a name that peers have opened is gone, and they cannot open it again. */
  canRegister({ memory }: HostBuffer): boolean {
    return this.transport.share === undefined || memory.name !== undefined;
  }

  /**
   * Lets collectives work on memory: peers of this machine map it where the transport shares memory. It stays the
   * caller's, who releases it here before closing it. All ranks register together. Rejects with MEMORY_NAME.
   */
  async register(own: HostBuffer): Promise<GroupBuffer> {
    const region = await this.transport.share?.(own.memory);
    const buffer = new GroupBuffer(this, own, region);
    this.#buffers.add(buffer);
    return buffer;
  }

  /** Memory of the group's own, which it closes: for what no one needs after it. All ranks allocate together. */
  async allocate(byteLength: number): Promise<GroupBuffer> {
    const own = this.newMemory(byteLength);
    this.#owned.add(own);
    return this.register(own);
  }

  /** Lets go of the peers' memory, and closes what the group allocated. No collective works on it any more. */
  release(buffer: GroupBuffer): void {
    if (!this.#buffers.delete(buffer)) return;
    buffer.letGo();
    if (this.#owned.delete(buffer.own)) buffer.own.close();
  }

  /**
   * Memory that another group has registered; it needs no release. All ranks do the same.
   * @param peers the memory of this group's ranks, by rank, as far as it can be read here
   */
  borrow(own: HostBuffer, peers: readonly (HostBuffer | undefined)[] = []): GroupBuffer {
    return new GroupBuffer(this, own, { peers });
  }

  /** Which schedule would run on memory of this group, and what each would take. */
  choose(collective: Collective, algorithm?: Algorithm): Choice {
    const options = algorithm === undefined ? {} : { algorithm };
    return this.#choose(collective, this.transport.share !== undefined, options);
  }

  #choose(
    collective: Collective,
    shared: boolean,
    { algorithm, once = false }: Pick<PrepareOptions, "algorithm" | "once">,
  ): Choice {
    const wanted = algorithm ?? this.#settings.algorithms?.[collective.kind];
    const { rank, size, machines } = this.transport;
    return chooseSchedule(collective, { rank, size, shared, machines }, this.costs, {
      ...(wanted === undefined ? {} : { algorithm: wanted }),
      canonical: this.#settings.canonical ?? false,
      once,
    });
  }

  /** Throws INVALID_OPTION, TYPE_MISMATCH, INVALID_BINDING. */
  async prepare(collective: Collective, options: PrepareOptions): Promise<Prepared> {
    const { dtype } = collective;
    const reduction = "reduction" in collective ? collective.reduction : "sum";
    if ("reduction" in collective) checkReduction(reduction, dtype);
    const unit = bytesPerElement(dtype);
    const extent = extentOf(collective);
    const { data, byteOffset = 0, into, intoByteOffset = 0, channel = 0 } = options;
    checkFits(data, byteOffset, extent.data * unit);
    if (collective.kind === "allToAll") {
      if (into === undefined)
        throw new LockstepError("INVALID_OPTION", "An all-to-all needs a place for its result.");
      checkFits(into, intoByteOffset, extent.into * unit);
    }
    const { schedule, estimates } = this.#choose(collective, data.isShared, options);
    const staging = await this.#stagingFor(schedule, unit);
    const scratch =
      schedule.scratch === 0 ? undefined : this.engine.allocateHost(schedule.scratch * unit);
    const runner = await Runner.prepare({
      engine: this.engine,
      transport: this.transport,
      schedule,
      dtype,
      reduction,
      divisor: ("divisor" in collective ? collective.divisor : undefined) ?? this.size,
      combination: "combination" in collective ? collective.combination : undefined,
      channel,
      deadlineMs: options.deadlineMs,
      place: (space, rank, turn) => {
        if (staging !== undefined && space === "staging")
          return { buffer: staging.of(rank), byteOffset: (turn * staging.byteLength) / 2 };
        if (space === "scratch") return { buffer: scratch as HostBuffer, byteOffset: 0 };
        if (space === "into")
          return { buffer: (into as GroupBuffer).of(rank), byteOffset: intoByteOffset };
        return { buffer: data.of(rank), byteOffset };
      },
    });
    // Barriers know no channel: what has them runs one after the other.
    const apart = channel !== 0 && schedule.steps.every((step) => step.do !== "barrier");
    const prepared: Prepared = {
      schedule,
      estimates,
      run: () => (apart ? runner.run() : this.#inTurn(() => runner.run())),
      close: () => {
        this.#prepared.delete(prepared);
        runner.close();
        scratch?.close();
        if (staging !== undefined) this.release(staging);
      },
    };
    this.#prepared.add(prepared);
    return prepared;
  }

  /** In turn, like runs: all ranks share it at the same place among their messages. */
  async #stagingFor({ staging = 0 }: Schedule, unit: number): Promise<GroupBuffer | undefined> {
    if (staging === 0) return undefined;
    const piece = Math.ceil((staging * unit) / STAGING_ALIGN) * STAGING_ALIGN;
    return this.#inTurn(() => this.allocate(2 * piece));
  }

  async #inTurn<T>(task: () => Promise<T>): Promise<T> {
    const before = this.#last;
    const run = before === undefined ? task() : before.then(task);
    this.#last = run;
    try {
      return await run;
    } finally {
      if (this.#last === run) this.#last = undefined;
    }
  }

  /** Once, and away with it. */
  async run(collective: Collective, options: PrepareOptions): Promise<void> {
    const prepared = await this.prepare(collective, { ...options, once: true });
    try {
      await prepared.run();
    } finally {
      prepared.close();
    }
  }

  async barrier(): Promise<void> {
    await this.transport.barrier();
  }

  /** A group of some of the ranks, with the same engine and costs. Its members call it, and close it. */
  async subgroup(ranks: readonly number[]): Promise<Group> {
    const transport = await this.transport.subgroup(ranks);
    return new Group({ ...this.#settings, transport, costs: this.costs });
  }

  /** Releases everything, the transport too. Memory that was registered stays its owner's. */
  async close(): Promise<void> {
    for (const prepared of this.#prepared) prepared.close();
    for (const buffer of this.#buffers) this.release(buffer);
    for (const own of this.#owned) own.close();
    this.#owned.clear();
    await this.transport.close();
  }
}

/** Memory of this rank and, where the transport shares memory, of its peers on this machine. */
export class GroupBuffer {
  /** This rank's. */
  readonly own: HostBuffer;
  readonly #group: Group;
  readonly #peers: readonly (HostBuffer | undefined)[];
  /** Of memory that this group has registered. */
  readonly #region: SharedRegion | undefined;

  /** @internal Use `Group.register`, `Group.allocate` or `Group.borrow`. */
  constructor(
    group: Group,
    own: HostBuffer,
    others: SharedRegion | { readonly peers: readonly (HostBuffer | undefined)[] } | undefined,
  ) {
    this.own = own;
    this.#group = group;
    if (others !== undefined && "peers" in others) {
      this.#region = undefined;
      this.#peers = others.peers;
      return;
    }
    this.#region = others;
    this.#peers = (others?.memories ?? []).map((memory, rank) =>
      rank === group.rank || memory === undefined ? undefined : group.engine.attach(memory),
    );
  }

  /** Whether the memory of all ranks of this machine can be read and written here. */
  get isShared(): boolean {
    const { rank, transport } = this.#group;
    const machine = transport.machines.find((ranks) => ranks.includes(rank)) ?? [];
    const lent = () => machine.every((peer) => peer === rank || this.#peers[peer] !== undefined);
    return this.#region !== undefined || (this.#peers.length > 0 && lent());
  }

  get byteLength(): number {
    return this.own.byteLength;
  }

  get bytes(): Uint8Array {
    return this.own.bytes;
  }

  of(rank: number): HostBuffer {
    const buffer = rank === this.#group.rank ? this.own : this.#peers[rank];
    if (buffer !== undefined) return buffer;
    throw new LockstepError("INVALID_BINDING", `The memory of rank ${rank} cannot be read here.`);
  }

  /** @internal Closes what this group has mapped of the peers' memory. */
  letGo(): void {
    if (this.#region === undefined) return;
    for (const buffer of this.#peers) buffer?.close();
    this.#region.close();
  }
}

function checkFits(buffer: GroupBuffer, byteOffset: number, byteLength: number): void {
  if (byteOffset >= 0 && byteOffset + byteLength <= buffer.byteLength) return;
  throw new LockstepError(
    "INVALID_BINDING",
    `${byteLength} bytes at ${byteOffset} do not fit memory of ${buffer.byteLength} bytes.`,
  );
}
