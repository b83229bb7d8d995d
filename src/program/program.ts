/**
 * A program is data: named buffers, named graphs, and stages of runs that say which graph reads and writes which
 * places. It can be printed, hashed and sent; `instance.ts` gives it memory and an engine.
 */
import type { Graph } from "../graph/index.ts";
import type { TensorType } from "../tensor/index.ts";

/** A place in a buffer of the program. */
export interface TensorRef {
  readonly buffer: string;
  readonly byteOffset: number;
  readonly type: TensorType;
}

export interface Run {
  /** The name of a graph of the program. */
  readonly graph: string;
  readonly inputs: Readonly<Record<string, TensorRef>>;
  readonly outputs: Readonly<Record<string, TensorRef>>;
}

/** Runs of a stage are bound when it is first run; a stage starts after the one before it. */
export interface Stage {
  readonly name: string;
  readonly runs: readonly Run[];
  /**
   * - `ordered`: one after the other, each on all threads;
   * - `parallel`: independent of each other, each on one thread, as many at once as there are threads;
   * - `small`: one after the other on the calling thread, microseconds each.
   */
  readonly mode: "ordered" | "parallel" | "small";
}

export interface GraphSpec {
  readonly graph: Graph;
  /** 1: a run stays on one thread. */
  readonly threads: 1 | "all";
}

export interface Program {
  /** Bytes of each buffer; they start as zeros. */
  readonly buffers: ReadonlyMap<string, number>;
  readonly graphs: ReadonlyMap<string, GraphSpec>;
}

/** Collects what a program needs while its stages are written. */
export class ProgramBuilder implements Program {
  readonly buffers = new Map<string, number>();
  readonly graphs = new Map<string, GraphSpec>();

  buffer(name: string, byteLength: number): string {
    this.buffers.set(name, Math.max(64, byteLength));
    return name;
  }

  /** The name of the graph; one that is there already under this name is kept. */
  graph(name: string, threads: 1 | "all", build: () => Graph): string {
    if (!this.graphs.has(name)) this.graphs.set(name, { graph: build(), threads });
    return name;
  }
}
