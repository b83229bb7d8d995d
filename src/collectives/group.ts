/**
 * A group of ranks that compute together: the memory that collectives work on, and collectives that
 * are prepared once and run many times. All ranks make the same calls in the same order.
 */
import type { AllocateHostOptions, Device, HostBuffer } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import { uniqueName } from "../memory/index.ts";
import { bytesPerElement } from "../tensor/index.ts";
import { type SharedRegion, type Transport, type Waiting, waitForAll } from "../transport/index.ts";
import { type Collective, checkCollective, extentOf } from "./collective.ts";
import { DEFAULT_COSTS, type LinkCosts } from "./measure.ts";
import { prepareSteps } from "./runner.ts";
import { type Span, type Step, scheduleOf } from "./schedule.ts";

export interface GroupSettings {
  /** Allocates the memory that collectives work on. */
  readonly engine: Device;
  readonly transport: Transport;
  /**
   * The measured costs of messages between nodes (`measureCosts`), the same on all ranks. Default:
   * those of a local network.
   */
  readonly costs?: LinkCosts;
}

/** Signals and messages have channels of their own; signals have no content. */
const SIGNALS = 1;
const MESSAGES = 2;
const NOTHING = new Uint8Array(0);

/**
 * The memory of a collective: it reads and writes `data`; an all-to-all writes `into`. Offsets are
 * in bytes.
 */
export interface PrepareOptions {
  readonly data: GroupBuffer;
  /** Default: 0. */
  readonly byteOffset?: number;
  readonly into?: GroupBuffer;
  /** Default: 0. */
  readonly intoByteOffset?: number;
}

export interface Prepared {
  readonly steps: readonly Step[];
  /**
   * Runs the collective. Collectives of one group run in the order in which they are called, which
   * must be the same on all ranks. Rejects with the group's error.
   */
  run(): Promise<void>;
}

export class Group {
  readonly transport: Transport;
  readonly engine: Device;
  costs: LinkCosts;
  readonly #buffers = new Set<GroupBuffer>();
  /** The last collective that was called; the next one waits for it. */
  #last: Promise<unknown> | undefined;

  /** The group owns the transport and closes it; the engine is the caller's. */
  constructor({ engine, transport, costs = DEFAULT_COSTS }: GroupSettings) {
    this.transport = transport;
    this.engine = engine;
    this.costs = costs;
  }

  get rank(): number {
    return this.transport.rank;
  }

  get size(): number {
    return this.transport.size;
  }

  /**
   * Returns zeroed memory for `register`; it has a name if the transport shares memory. The caller
   * closes it.
   */
  newMemory(byteLength: number, options: Omit<AllocateHostOptions, "shareAs"> = {}): HostBuffer {
    const { share } = this.transport;
    return this.engine.allocateHost(
      byteLength,
      share === undefined ? options : { ...options, shareAs: uniqueName() },
    );
  }

  /** Whether `register` takes this memory: peers must be able to open it, if they map it. */
  canRegister({ memory }: HostBuffer): boolean {
    return this.transport.share === undefined || memory.reachedAs !== undefined;
  }

  /**
   * Lets collectives work on memory, which peers of this node map if the transport shares memory.
   * The memory stays the caller's, who releases it here before closing it. All ranks register
   * together. Rejects with MEMORY_NAME.
   */
  async register(own: HostBuffer): Promise<GroupBuffer> {
    const region = await this.transport.share?.(own.memory);
    const buffer = new GroupBuffer(this, own, region);
    this.#buffers.add(buffer);
    return buffer;
  }

  /** Unmaps the peers' memory. No collective may work on it any more. */
  release(buffer: GroupBuffer): void {
    if (this.#buffers.delete(buffer)) buffer.letGo();
  }

  /**
   * Borrows memory that another group has registered; it needs no release. All ranks do the same.
   * @param peers the memory of this group's ranks, by rank, as far as it can be read here
   */
  borrow(own: HostBuffer, peers: readonly (HostBuffer | undefined)[] = []): GroupBuffer {
    return new GroupBuffer(this, own, { peers });
  }

  /** @throws INVALID_OPTION, INVALID_BINDING */
  prepare(collective: Collective, options: PrepareOptions): Prepared {
    const { rank, size, nodes } = this.transport;
    checkCollective(collective, size);
    const { dtype } = collective;
    const unit = bytesPerElement(dtype);
    const extent = extentOf(collective);
    const { data, byteOffset = 0, into, intoByteOffset = 0 } = options;
    checkFits(data, byteOffset, extent.data * unit);
    if (collective.kind === "allToAll") {
      if (into === undefined)
        throw new LockstepError(
          "INVALID_OPTION",
          "An all-to-all needs `into`, the place for its result.",
        );
      checkFits(into, intoByteOffset, extent.into * unit);
    }
    const bytesOf = ({ space, rank: owner = rank, start, length }: Span): Uint8Array => {
      const [buffer, first] =
        space === "data" ? [data, byteOffset] : [into as GroupBuffer, intoByteOffset];
      return buffer.of(owner).tensor({ dtype, shape: [length] }, first + start * unit).bytes;
    };
    const steps = scheduleOf(collective, { rank, nodes, shared: data.isShared });
    const run = prepareSteps(steps, this.transport, bytesOf);
    return { steps, run: () => this.#inTurn(run) };
  }

  async #inTurn(task: () => Promise<void>): Promise<void> {
    const before = this.#last;
    const run = before === undefined ? task() : before.then(task);
    this.#last = run;
    try {
      await run;
    } finally {
      if (this.#last === run) this.#last = undefined;
    }
  }

  /** Resolves when all ranks of the group have called it. Rejects with the group's error. */
  async barrier(): Promise<void> {
    await this.transport.barrier();
  }

  /**
   * Tells ranks that something is done, and waits until others have told it. Between two ranks, the
   * n-th wait is for the n-th signal. Rejects with the group's error.
   */
  async signal(tells: readonly number[], awaits: readonly number[]): Promise<void> {
    const { transport } = this;
    await waitForAll([
      ...tells.map((rank) => () => transport.send(rank, NOTHING, { channel: SIGNALS })),
      ...awaits.map((rank) => () => transport.receive(rank, NOTHING, { channel: SIGNALS })),
    ]);
  }

  /** Sends one message. Between two ranks, the n-th receive is for the n-th message. */
  send(to: number, bytes: Uint8Array): Waiting {
    return this.transport.send(to, bytes, { channel: MESSAGES });
  }

  receive(from: number, into: Uint8Array): Waiting {
    return this.transport.receive(from, into, { channel: MESSAGES });
  }

  /**
   * Creates a group of some of the ranks, with the same engine and costs. All members call this,
   * and each closes its group.
   */
  async subgroup(ranks: readonly number[]): Promise<Group> {
    const transport = await this.transport.subgroup(ranks);
    return new Group({ engine: this.engine, transport, costs: this.costs });
  }

  /** Releases all memory and closes the transport. Memory that was registered stays its owner's. */
  async close(): Promise<void> {
    for (const buffer of this.#buffers) this.release(buffer);
    await this.transport.close();
  }
}

/** The memory of this rank and, if the transport shares memory, of the other ranks of its node. */
export class GroupBuffer {
  /** The memory of this rank. */
  readonly own: HostBuffer;
  readonly #group: Group;
  readonly #peers: readonly (HostBuffer | undefined)[];
  /** The mapped memory of peers, if this group has registered the memory. */
  readonly #region: SharedRegion | undefined;

  /** @internal Use `Group.register` or `Group.borrow`. */
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

  /** Whether the memory of all ranks of this node can be read and written here. */
  get isShared(): boolean {
    const { rank, transport } = this.#group;
    const node = transport.nodes.find((ranks) => ranks.includes(rank)) ?? [];
    const lent = () => node.every((peer) => peer === rank || this.#peers[peer] !== undefined);
    return this.#region !== undefined || (this.#peers.length > 0 && lent());
  }

  get byteLength(): number {
    return this.own.byteLength;
  }

  get bytes(): Uint8Array {
    return this.own.bytes;
  }

  /** Whether the memory of a rank can be read here. */
  has(rank: number): boolean {
    return rank === this.#group.rank || this.#peers[rank] !== undefined;
  }

  /** Returns the memory of a rank. @throws INVALID_BINDING when it cannot be read here */
  of(rank: number): HostBuffer {
    const buffer = rank === this.#group.rank ? this.own : this.#peers[rank];
    if (buffer !== undefined) return buffer;
    throw new LockstepError("INVALID_BINDING", `The memory of rank ${rank} cannot be read here.`);
  }

  /** @internal Unmaps the peers' memory that this group has mapped. */
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
