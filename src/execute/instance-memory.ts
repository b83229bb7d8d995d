/**
 * The memory of an instance, by name. Buffers are allocated and closed here, and are kept from
 * program to program and from group to group. Groups only borrow the buffers that their collectives
 * work on.
 */
import type { Group, GroupBuffer } from "../collectives/index.ts";
import type { Device, DeviceBuffer, HostBuffer } from "../engine/index.ts";
import { assert } from "../errors.ts";
import {
  type BufferPart,
  type BufferSpace,
  type BufferSpec,
  type Extent,
  type Program,
  withoutExtents,
} from "../program/index.ts";

/** Bytes that one copy moves at most, because some systems cannot make larger views. */
const COPY_BYTES = 2 ** 30;

export class InstanceMemory {
  readonly #device: Device;
  readonly #buffers = new Map<string, DeviceBuffer>();
  /** How many instances use a buffer, by name; it is closed by the last one. */
  readonly #users = new Map<string, { count: number }>();
  /** The parts that have pages, or may get them. */
  readonly #parts = new Map<string, readonly Extent[]>();
  /** Parts that only another instance has used, by name. */
  readonly #surplus = new Map<string, readonly Extent[]>();
  /** The buffers that collectives work on, as the group of all ranks sees them. */
  readonly #registered = new Map<string, GroupBuffer>();
  /** The same buffers as groups of some of the ranks see them, by group and name. */
  readonly #lent = new Map<string, GroupBuffer>();

  /** The ranks of the program's groups, by name. */
  readonly #ranks = new Map<string, readonly number[]>();

  readonly #folder: string | undefined;

  /** @param folder of the disk for buffers whose space is `disk` */
  constructor(device: Device, folder: string | undefined) {
    this.#device = device;
    this.#folder = folder;
  }

  /** Returns this rank's buffer, or that of another rank of its node. */
  buffer(name: string, rank?: number): DeviceBuffer {
    if (rank !== undefined) return this.shared(name).of(rank);
    const buffer = this.#buffers.get(name);
    assert(buffer !== undefined, `the program has a buffer "${name}"`);
    return buffer;
  }

  host(name: string, rank?: number): HostBuffer {
    const buffer = this.buffer(name, rank);
    assert(isHost(buffer), `the program has the buffer "${name}" in host memory`);
    return buffer;
  }

  /** The bytes of a part of this rank's buffer that the program has in host memory. */
  bytes({ buffer, byteOffset, byteLength }: BufferPart): Uint8Array {
    return this.host(buffer).memory.view(byteOffset, byteLength);
  }

  /** Returns a buffer as collectives of all ranks see it. */
  shared(name: string): GroupBuffer {
    const buffer = this.#registered.get(name);
    assert(buffer !== undefined, `the program shares the buffer "${name}"`);
    return buffer;
  }

  /** Remembers the ranks of a group of the program. */
  addGroup(name: string, ranks: readonly number[]): void {
    this.#ranks.set(name, ranks);
  }

  /** Returns a buffer as collectives of some of the ranks see it. */
  lent(name: string, of: string, all: Group, group: Group): GroupBuffer {
    const buffer = this.shared(name);
    const key = `${of} ${name}`;
    const known = this.#lent.get(key);
    if (known?.own === buffer.own) return known;
    const node = all.transport.nodes.find((ranks) => ranks.includes(all.rank)) ?? [];
    const ranks = this.#ranks.get(of) ?? [];
    const isInPlace = ranks.every((rank) => node.includes(rank));
    const peers = isInPlace ? ranks.map((rank) => buffer.of(rank)) : [];
    const lent = group.borrow(buffer.own, peers);
    this.#lent.set(key, lent);
    return lent;
  }

  /**
   * Makes room for a private buffer. The buffer keeps its contents, but is filled with zeros if it
   * has to grow.
   */
  async allocate(name: string, { byteLength, space, parts }: BufferSpec): Promise<void> {
    const before = this.#buffers.get(name);
    // A registered buffer stays registered: other ranks may still share it, and later all ranks
    // must register the same buffers.
    const isShared = this.#registered.has(name);
    const isRightSpace = isShared || (before !== undefined && spaceOf(before) === space);
    if (before !== undefined && isRightSpace && before.byteLength >= byteLength) {
      return this.#grow(name, before, partsOf({ byteLength, parts }));
    }
    assert(!isShared, `the shared buffer "${name}" is large enough`);
    // The contents of an older buffer are copied whole.
    const options = before === undefined ? { parts } : {};
    await this.#replace(name, byteLength, options.parts, () =>
      space === "device"
        ? this.#device.allocate(byteLength, options)
        : this.#device.allocateHost(byteLength, { ...options, folder: this.#folderFor(space) }),
    );
  }

  /**
   * Makes room for a buffer that collectives of all ranks work on. All ranks call this together.
   * The buffer keeps its contents as in `allocate`.
   */
  async share(name: string, { byteLength, space, parts }: BufferSpec, all: Group): Promise<void> {
    // Lengths may differ between ranks, so they must not decide whether the ranks register
    // together.
    if (this.#registered.get(name)?.byteLength === byteLength) return;
    const before = this.#buffers.get(name);
    const folder = this.#folderFor(space);
    const touched = before === undefined ? parts : undefined;
    const isKept =
      before?.byteLength === byteLength &&
      isHost(before) &&
      (spaceOf(before) === "disk") === (folder !== undefined) &&
      all.canRegister(before);
    const own = isKept
      ? before
      : await this.#replace(
          name,
          byteLength,
          touched,
          () => all.newMemory(byteLength, { parts: touched, folder }),
          all,
        );
    if (isKept) this.#grow(name, own, partsOf({ byteLength, parts }));
    this.#registered.set(name, await all.register(own));
  }

  /** Those buffers for which `share` would take new shared memory of this machine. */
  unshared({ buffers, shared }: Program, all: Group): BufferSpec[] {
    return [...shared].flatMap((name) => {
      const spec = buffers.get(name);
      if (spec === undefined || spec.space === "disk") return [];
      const before = this.#buffers.get(name);
      const isThere =
        before?.byteLength === spec.byteLength && isHost(before) && all.canRegister(before);
      if (!isThere) return [spec];
      return [{ ...spec, parts: withoutExtents(partsOf(spec), this.#parts.get(name) ?? []) }];
    });
  }

  /**
   * Uses buffers of another instance too. The last of both to be closed closes them.
   * @param all the group that shared buffers will be registered with
   * @returns whether it does: not if the buffer that is asked for is another one, or lies elsewhere
   */
  adopt(other: InstanceMemory, name: string, spec: BufferSpec, all: Group | undefined): boolean {
    const buffer = other.#buffers.get(name);
    const users = other.#users.get(name);
    if (buffer === undefined || users === undefined) return false;
    // What ranks share lies in host memory, whatever the space of the program.
    const space = all === undefined ? spec.space : "host";
    const isSame = buffer.byteLength === spec.byteLength && spaceOf(buffer) === space;
    if (!isSame || spec.space === "disk") return false;
    const [held, wanted] = [other.#parts.get(name) ?? [], partsOf(spec)];
    if (!isHost(buffer) && withoutExtents(wanted, held).length > 0) return false;
    if (all !== undefined && !(isHost(buffer) && all.canRegister(buffer))) return false;
    users.count += 1;
    this.#users.set(name, users);
    this.#buffers.set(name, buffer);
    this.#parts.set(name, held);
    this.#surplus.set(name, isHost(buffer) ? withoutExtents(held, wanted) : []);
    return true;
  }

  /** Gives back what only the instance before has used, once nobody goes back to that one. */
  trim(): void {
    for (const [name, surplus] of this.#surplus) {
      if (surplus.length === 0) continue;
      const { memory } = this.host(name);
      for (const { byteOffset, byteLength } of surplus) memory.discard(byteOffset, byteLength);
      this.#parts.set(name, withoutExtents(this.#parts.get(name) ?? [], surplus));
    }
    this.#surplus.clear();
  }

  /** Takes all buffers back from the group of all ranks. Nothing is shared afterwards. */
  release(all: Group): void {
    for (const buffer of this.#registered.values()) all.release(buffer);
    this.#registered.clear();
    this.#lent.clear();
  }

  close(): void {
    for (const name of this.#buffers.keys()) this.#drop(name);
  }

  /** Makes room for parts of a buffer that were not touched before. */
  #grow(name: string, buffer: DeviceBuffer, wanted: readonly Extent[]): void {
    if (!isHost(buffer)) return;
    const held = this.#parts.get(name) ?? [];
    const missing = withoutExtents(wanted, held);
    for (const { byteOffset, byteLength } of missing) {
      buffer.memory.reserve(byteOffset, byteLength);
    }
    if (missing.length > 0) this.#parts.set(name, [...held, ...missing]);
  }

  #folderFor(space: BufferSpace): string | undefined {
    if (space !== "disk") return undefined;
    assert(this.#folder !== undefined, "an instance with buffers on disk has a folder for them");
    return this.#folder;
  }

  async #replace<B extends DeviceBuffer>(
    name: string,
    byteLength: number,
    parts: BufferSpec["parts"],
    allocate: () => B,
    all?: Group,
  ): Promise<B> {
    const before = this.#buffers.get(name);
    const registered = this.#registered.get(name);
    const buffer = allocate();
    if (before !== undefined && before.byteLength >= byteLength) {
      await this.#copy(before, buffer, byteLength);
    }
    this.#registered.delete(name);
    if (registered !== undefined) all?.release(registered);
    this.#drop(name);
    this.#buffers.set(name, buffer);
    this.#users.set(name, { count: 1 });
    this.#parts.set(name, partsOf({ byteLength, parts }));
    return buffer;
  }

  /** Uses a buffer no longer. */
  #drop(name: string): void {
    const users = this.#users.get(name);
    if (users !== undefined && --users.count === 0) this.#buffers.get(name)?.close();
    for (const known of [this.#users, this.#buffers, this.#parts, this.#surplus]) {
      known.delete(name);
    }
  }

  async #copy(from: DeviceBuffer, to: DeviceBuffer, byteLength: number): Promise<void> {
    for (let at = 0; at < byteLength; at += COPY_BYTES) {
      const type = { dtype: "uint8", shape: [Math.min(COPY_BYTES, byteLength - at)] } as const;
      await this.#device.copy(from.tensor(type, at), to.tensor(type, at));
    }
  }
}

function partsOf({
  byteLength,
  parts,
}: Pick<BufferSpec, "byteLength" | "parts">): readonly Extent[] {
  return parts ?? [{ byteOffset: 0, byteLength }];
}

function spaceOf(buffer: DeviceBuffer): BufferSpace {
  return isHost(buffer) && buffer.memory.folder !== undefined ? "disk" : buffer.space;
}

function isHost(buffer: DeviceBuffer): buffer is HostBuffer {
  return buffer.space === "host";
}
