/**
 * A program is data: named buffers, named graphs, and stages of runs that say which graph reads and
 * writes which places. It is printed, hashed and sent; an instance gives it memory and a device.
 */
import type { Collective } from "../collectives/index.ts";
import type { Space } from "../engine/index.ts";
import { assert } from "../errors.ts";
import type { Graph } from "../graph/index.ts";
import { byteLength, type TensorType } from "../tensor/index.ts";

/** A place in a buffer of the program. */
export interface TensorRef {
  readonly buffer: string;
  readonly byteOffset: number;
  readonly type: TensorType;
  /** The rank of this node whose buffer is meant. Default: this rank. */
  readonly rank?: number;
}

export interface Run {
  /** The name of a graph of the program. */
  readonly graph: string;
  readonly inputs: Readonly<Record<string, TensorRef>>;
  readonly outputs: Readonly<Record<string, TensorRef>>;
}

/** A stage starts after the one before it. */
export type Stage = SimpleStage | TaskStage;

/** A stage that is no list of tasks. */
export type SimpleStage = RunStage | CollectiveStage | SignalStage | MessageStage;

/** Runs of a stage are bound when it is first run. */
export interface RunStage {
  readonly name: string;
  readonly runs: readonly Run[];
  /**
   * - `ordered`: one after the other, each on all threads;
   * - `parallel`: independent of each other, each on one thread, as many at once as threads;
   * - `sweep`: as `parallel`, but each takes milliseconds only. A device of one thread runs them on
   *   the calling thread, which serves its event loop in between;
   * - `small`: one after the other on the calling thread, microseconds each.
   */
  readonly mode: "ordered" | "parallel" | "sweep" | "small";
  /**
   * Whether each run overwrites values that no other rank has, so that they are written to the
   * journal first (`planJournal`).
   */
  readonly isLogged?: boolean;
}

/** All ranks of the group come here; none passes before what it needs of the others is there. */
export interface CollectiveStage {
  readonly name: string;
  readonly mode: "collective";
  /** A group of the program. */
  readonly group: string;
  /** The stage of a pipeline for which alone ranks come here. Default: it is for all of them. */
  readonly ofStage?: number;
  readonly call: { readonly kind: "barrier" } | Collective;
  /** Undefined for a barrier. */
  readonly data?: BufferPlace;
  /** Where an exchange puts what it receives. */
  readonly into?: BufferPlace;
}

/**
 * Messages without content between single ranks: those in `tells` are told that this rank has come
 * here, and of those in `awaits` it waits for one such message. Between two ranks they keep their
 * order.
 */
export interface SignalStage {
  readonly name: string;
  readonly mode: "signal";
  readonly tells: readonly number[];
  readonly awaits: readonly number[];
}

/**
 * Messages between single ranks that do not share memory. A stage begins some, which travel while
 * later stages run, and waits until others have ended. Before its end what is sent is not written,
 * and what is received is not read. Both ranks of a pair begin their messages in the same order.
 */
export interface MessageStage {
  readonly name: string;
  readonly mode: "messages";
  readonly begins: readonly Message[];
  /** The numbers of messages that this stage waits for. */
  readonly ends: readonly number[];
}

export interface Message {
  /** Its number among the messages of this rank. */
  readonly number: number;
  /** The rank to which it goes, or from which it comes. */
  readonly peer: number;
  readonly isSent: boolean;
  readonly part: BufferPart;
}

/** Tasks that start as soon as what they need is done: communication travels beside computation. */
export interface TaskStage {
  readonly name: string;
  readonly mode: "tasks";
  /** They can run one after the other in this order. Those that communicate are on all ranks. */
  readonly tasks: readonly Task[];
}

export interface Task {
  readonly name: string;
  /**
   * The tasks of a lane run one at a time, in their order. `compute` is the lane of computation.
   */
  readonly lane: string;
  /** Tasks (by index, all smaller than its own) that must be done first. */
  readonly after: readonly number[];
  /** Done one after the other. */
  readonly work: readonly SimpleStage[];
}

/** Sends and receives, and waits until all of it has ended; nothing where there is no message. */
export function exchanged(name: string, begins: readonly Message[]): MessageStage[] {
  const ends = begins.map(({ number }) => number);
  return begins.length === 0 ? [] : [{ name, mode: "messages", begins, ends }];
}

/** The lane of tasks that compute. */
export const COMPUTE = "compute";

export interface BufferPlace {
  readonly buffer: string;
  readonly byteOffset: number;
}

/** All ranks of a group come here before any of them goes on. */
export function barrier(name: string, group: string): CollectiveStage {
  return { name, mode: "collective", group, call: { kind: "barrier" } };
}

/** Every rank of a group has its part in place; afterwards all have all parts. */
export function allGather(
  name: string,
  group: string,
  parts: Pick<Extract<Collective, { kind: "allGather" }>, "dtype" | "counts">,
  data: BufferPlace,
): CollectiveStage {
  return { name, mode: "collective", group, call: { kind: "allGather", ...parts }, data };
}

/**
 * Adds a task to a list, and returns its index.
 * @param after the tasks that must be done first; undefined ones are left out
 */
export function addTask(
  tasks: Task[],
  task: Omit<Task, "after">,
  after: readonly (number | undefined)[],
): number {
  const waits = after.filter((index) => index !== undefined).sort((a, b) => a - b);
  tasks.push({ ...task, after: [...new Set(waits)] });
  return tasks.length - 1;
}

export interface GraphSpec {
  readonly graph: Graph;
  /** 1: a run stays on one thread. */
  readonly threads: 1 | "all";
}

/**
 * - `host`: the process reads or writes it as bytes;
 * - `device`: only runs, uploads and downloads do;
 * - `disk`: as `host`, in a mapped file of a disk, so that it need not stay in memory.
 */
export type BufferSpace = Space | "disk";

/** Memory of a program. It starts as zeros. */
export interface BufferSpec {
  readonly byteLength: number;
  readonly space: BufferSpace;
  /** The only bytes that this rank touches, and that take memory here; other ranks own the rest. */
  readonly parts?: readonly Extent[] | undefined;
}

/** A part of a buffer, in bytes. */
export interface Extent {
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** Bytes of a buffer of this rank. */
export interface BufferPart extends Extent {
  readonly buffer: string;
}

/** The bytes of a buffer that take memory, or space on the disk, on this rank. */
export function residentBytes({ byteLength, parts }: BufferSpec): number {
  return parts?.reduce((sum, part) => sum + part.byteLength, 0) ?? byteLength;
}

export interface Program {
  readonly buffers: ReadonlyMap<string, BufferSpec>;
  /** Buffers that collectives work on: they are host memory, and peers map them where they can. */
  readonly shared: ReadonlySet<string>;
  readonly graphs: ReadonlyMap<string, GraphSpec>;
  /** The ranks (ascending, with this one) of each group that collectives of this rank name. */
  readonly groups: ReadonlyMap<string, readonly number[]>;
}

/** Collects what a program needs while its stages are written. */
export class ProgramBuilder implements Program {
  readonly buffers = new Map<string, BufferSpec>();
  readonly shared = new Set<string>();
  readonly graphs = new Map<string, GraphSpec>();
  readonly groups = new Map<string, readonly number[]>();
  #messages = 0;

  /** A message with a number of its own. */
  message(part: TensorRef, peer: number, isSent: boolean): Message {
    const { buffer, byteOffset, type } = part;
    const number = this.#messages++;
    return { number, peer, isSent, part: { buffer, byteOffset, byteLength: byteLength(type) } };
  }

  buffer(name: string, byteLength: number, space: BufferSpace = "device"): string {
    this.buffers.set(name, { byteLength: Math.max(64, byteLength), space });
    return name;
  }

  /** Makes a buffer, or makes it longer if it is shorter. */
  growing(name: string, byteLength: number): string {
    return this.buffer(name, Math.max(this.buffers.get(name)?.byteLength ?? 0, byteLength));
  }

  /** Says which bytes of a buffer this rank touches. */
  touches(name: string, parts: readonly Extent[]): void {
    const spec = this.buffers.get(name);
    assert(spec !== undefined, `the program has a buffer "${name}"`);
    this.buffers.set(name, { ...spec, parts });
  }

  /** The name of the graph; one that is there already under this name is kept. */
  graph(name: string, threads: 1 | "all", build: () => Graph): string {
    if (!this.graphs.has(name)) this.graphs.set(name, { graph: build(), threads });
    return name;
  }
}
