/**
 * A group of ranks that compute together: memory that collectives work on, and collectives prepared once and run
 * many times. All ranks make the same calls in the same order.
 */
import { randomBytes } from "node:crypto";
import type { Engine, EngineBuffer } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import { allocateMemory, type Memory } from "../memory/index.ts";
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
  readonly engine: Engine;
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
  readonly engine: Engine;
  costs: CostModel;
  readonly #settings: GroupSettings;
  readonly #buffers = new Set<GroupBuffer>();
  readonly #prepared = new Set<Prepared>();
  /** The run that the next one waits for. */
  #last: Promise<void> | undefined;

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

  /** Zeroed memory for collectives: peers can read it where the transport shares memory. */
  allocate(byteLength: number): Promise<GroupBuffer> {
    const { share } = this.transport;
    const name = `group-${process.pid}-${randomBytes(6).toString("hex")}`;
    return this.adopt(allocateMemory(byteLength, share === undefined ? {} : { shareAs: name }));
  }

  /** Closes memory that no collective works on any more. All ranks are done with it. */
  release(buffer: GroupBuffer): void {
    if (this.#buffers.delete(buffer)) buffer.close();
  }

  /** Memory that is there already; named where the transport shares memory. The group closes it. */
  async adopt(memory: Memory): Promise<GroupBuffer> {
    const region = await this.transport.share?.(memory);
    const own = this.engine.attach(memory);
    const buffer = new GroupBuffer(this, own, region);
    this.#buffers.add(buffer);
    return buffer;
  }

  /**
   * Memory that another group owns; closing this group does not close it. All ranks do the same.
   * @param peers the memory of this group's ranks, by rank, as far as it can be read here
   */
  borrow(own: EngineBuffer, peers: readonly (EngineBuffer | undefined)[] = []): GroupBuffer {
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
      schedule.scratch === 0 ? undefined : this.engine.allocate(schedule.scratch * unit);
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
        if (space === "scratch") return { buffer: scratch as EngineBuffer, byteOffset: 0 };
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
      run: () => (apart ? runner.run() : this.#inTurn(runner)),
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

  async #stagingFor({ staging = 0 }: Schedule, unit: number): Promise<GroupBuffer | undefined> {
    if (staging === 0) return undefined;
    const piece = Math.ceil((staging * unit) / STAGING_ALIGN) * STAGING_ALIGN;
    return this.allocate(2 * piece);
  }

  async #inTurn(runner: Runner): Promise<void> {
    const before = this.#last;
    const run = before === undefined ? runner.run() : before.then(() => runner.run());
    this.#last = run;
    try {
      await run;
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

  /** Releases everything, the transport too. */
  async close(): Promise<void> {
    for (const prepared of this.#prepared) prepared.close();
    for (const buffer of this.#buffers) buffer.close();
    this.#buffers.clear();
    await this.transport.close();
  }
}

/** Memory of this rank and, where the transport shares memory, of its peers on this machine. */
export class GroupBuffer {
  /** This rank's. */
  readonly own: EngineBuffer;
  readonly #group: Group;
  readonly #peers: readonly (EngineBuffer | undefined)[];
  /** Of memory that this group owns and shares. */
  readonly #region: SharedRegion | undefined;
  readonly #isBorrowed: boolean;

  /** @internal Use `Group.allocate`, `Group.adopt` or `Group.borrow`. */
  constructor(
    group: Group,
    own: EngineBuffer,
    others: SharedRegion | { readonly peers: readonly (EngineBuffer | undefined)[] } | undefined,
  ) {
    this.own = own;
    this.#group = group;
    this.#isBorrowed = others !== undefined && "peers" in others;
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

  of(rank: number): EngineBuffer {
    const buffer = rank === this.#group.rank ? this.own : this.#peers[rank];
    if (buffer !== undefined) return buffer;
    throw new LockstepError("INVALID_BINDING", `The memory of rank ${rank} cannot be read here.`);
  }

  close(): void {
    if (this.#isBorrowed) return;
    for (const buffer of this.#peers) buffer?.close();
    this.own.close();
    this.#region?.close();
  }
}

function checkFits(buffer: GroupBuffer, byteOffset: number, byteLength: number): void {
  if (byteOffset >= 0 && byteOffset + byteLength <= buffer.byteLength) return;
  throw new LockstepError(
    "INVALID_BINDING",
    `${byteLength} bytes at ${byteOffset} do not fit memory of ${buffer.byteLength} bytes.`,
  );
}
