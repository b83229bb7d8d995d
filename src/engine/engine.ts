/**
 * What runs graphs. An engine owns memory and compiled graphs; it never opens a socket and knows no gradient.
 * Implementations: `ort-native` (ONNX Runtime's C API); `reference` (plain and slow, for tests).
 */
import type { Graph } from "../graph/index.ts";
import type { Memory } from "../memory/index.ts";
import type { TensorType } from "../tensor/index.ts";

export interface Engine {
  readonly name: string;
  /** The library and its version, for reports: `onnxruntime 1.30.0`. */
  readonly version: string;
  /** Threads that one run may use; all executables of an engine share one pool. */
  readonly threads: number;
  /** Zeroed memory outside the JavaScript heap, aligned to 64 bytes. */
  allocate(byteLength: number, options?: AllocateOptions): EngineBuffer;
  /** Memory of another process or a file (`openMemory`, `mapFile`) as a buffer, which then owns it. */
  attach(memory: Memory): EngineBuffer;
  /**
   * Compiles a graph; equal graphs (by structure, not by names) share one compiled session.
   * Throws ENGINE_FAILED with the engine's own words.
   */
  compile(graph: Graph, options?: CompileOptions): Promise<Executable>;
  /** Releases everything. Later use of anything made by this engine throws ENGINE_CLOSED. */
  close(): Promise<void>;
}

export interface AllocateOptions {
  /** A name for memory that other processes can map; without it the memory is private. */
  readonly shareAs?: string;
}

export interface CompileOptions {
  /** Threads of one run; the engine's unless told. 1: runs on the calling thread, several may run at once. */
  readonly threads?: number;
}

/** A piece of memory. `bytes` is a view of it: what is written there is what the engine reads. */
export interface EngineBuffer {
  readonly byteLength: number;
  readonly bytes: Uint8Array;
  /** A tensor at `byteOffset`, which must be a multiple of the element's size. Nothing is copied. */
  tensor(type: TensorType, byteOffset?: number): EngineTensor;
  close(): void;
}

export interface EngineTensor extends TensorType {
  readonly buffer: EngineBuffer;
  readonly byteOffset: number;
  /** The tensor's own bytes, as a view. */
  readonly bytes: Uint8Array;
}

export interface Executable {
  /** The graph that was compiled, with its own names. */
  readonly graph: Graph;
  /**
   * Prepares a run: every graph input and output gets a tensor of exactly its type (checked).
   * An output may be the very tensor of an input only where `mayAlias` says so.
   */
  bind(tensors: Bindings): Binding;
  /** Whether output may share memory with input: all nodes between them work element by element, in place. */
  mayAlias(output: string, input: string): boolean;
  close(): void;
}

export interface Bindings {
  readonly inputs: Readonly<Record<string, EngineTensor>>;
  readonly outputs: Readonly<Record<string, EngineTensor>>;
}

/** A run that can be repeated. Runs of one binding must not overlap. */
export interface Binding {
  /** Off the JavaScript thread. Rejects with ENGINE_FAILED, or the signal's reason; outputs are then undefined. */
  run(options?: RunOptions): Promise<void>;
  /** On the JavaScript thread, for runs of microseconds. */
  runSync(): void;
  close(): void;
}

export interface RunOptions {
  /** Ends the run between two of its nodes. */
  readonly signal?: AbortSignal;
}
