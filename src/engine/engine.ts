/**
 * What runs graphs. A device owns memory and compiled graphs; it never opens a socket and knows no
 * gradient. Implementations: `ort-native` (ONNX Runtime's C API, on the CPU); `reference` (plain
 * and slow, for tests; its device memory cannot be reached as bytes).
 */
import type { Graph } from "../graph/index.ts";
import type { AllocateMemoryOptions, Memory } from "../memory/index.ts";
import type { Tensor, TensorType } from "../tensor/index.ts";

export interface Device {
  readonly name: string;
  /** The library and its version, for reports: `onnxruntime 1.30.0`. */
  readonly version: string;
  /** Threads that one run may use; all executables of a device share one pool. */
  readonly threads: number;
  /** The runs of this device so far. */
  readonly runs: Readonly<RunCounts>;
  /**
   * Zeroed memory of the device, aligned to 64 bytes. Only runs, `upload`, `download` and `copy`
   * reach its contents.
   */
  allocate(byteLength: number, options?: AllocateOptions): DeviceBuffer;
  /**
   * Zeroed memory of this process, aligned to 64 bytes: readable and writable as bytes, and by runs
   * of this device.
   */
  allocateHost(byteLength: number, options?: AllocateHostOptions): HostBuffer;
  /**
   * Memory of another process or a file (`openMemory`, `mapFile`) as a buffer, which then owns it.
   */
  attach(memory: Memory): HostBuffer;
  /**
   * Returns the form of a graph that this device runs, with the same values, inputs and outputs. A
   * graph is cut into pieces in this form, so that pieces give the bits of the whole.
   */
  prepare(graph: Graph): Graph;
  /**
   * Compiles a graph; equal graphs (by structure, not by names) share one compiled session.
   * Throws ENGINE_FAILED with the engine's own words.
   */
  compile(graph: Graph, options?: CompileOptions): Promise<Executable>;
  /**
   * Writes a tensor's bytes. Runs, copies and downloads that are asked for afterwards see them.
   * Throws SHAPE_MISMATCH for another number of bytes.
   */
  upload(into: DeviceTensor, bytes: Uint8Array): void;
  /**
   * A tensor's contents, after all runs that have ended. Where the memory is this process's own
   * (host memory, a CPU) they are a view, not a copy: read them before the next write, and do not
   * write to them.
   */
  download(from: DeviceTensor): Promise<Tensor>;
  /**
   * Copies one tensor's contents to another of the same number of bytes, of either space. Rejects
   * with SHAPE_MISMATCH.
   */
  copy(from: DeviceTensor, to: DeviceTensor): Promise<void>;
  /** Releases everything. Later use of anything made by this device throws ENGINE_CLOSED. */
  close(): Promise<void>;
}

/** How many runs have begun, and how many of them have ended. */
export interface RunCounts {
  begun: number;
  ended: number;
}

export interface AllocateOptions {
  /**
   * The only parts that will ever be touched; a device may have no memory for the rest. Default:
   * all.
   */
  readonly parts?: AllocateMemoryOptions["parts"];
}

export interface AllocateHostOptions extends AllocateOptions {
  /** A name under which other processes can map the memory; without it the memory is private. */
  readonly shareAs?: string;
  /** A folder of a disk: the memory lies in a file there, and need not stay in memory. */
  readonly folder?: string | undefined;
}

export interface CompileOptions {
  /**
   * Threads of one run. Default: the device's. 1: it runs on the calling thread, and several may
   * run at once.
   */
  readonly threads?: number;
}

/**
 * Where a buffer lies: in memory of the device, or in memory that this process reads and writes
 * too.
 */
export type Space = "device" | "host";

/**
 * A piece of memory that runs read and write. Only that of space `host` has bytes: see
 * `HostBuffer`.
 */
export interface DeviceBuffer {
  readonly byteLength: number;
  readonly space: Space;
  /**
   * A tensor at `byteOffset`, which must be a multiple of the element's size. Nothing is copied.
   */
  tensor(type: TensorType, byteOffset?: number): DeviceTensor;
  close(): void;
}

/** `bytes` is a view of the memory: what is written there is what runs read. */
export interface HostBuffer extends DeviceBuffer {
  readonly space: "host";
  readonly bytes: Uint8Array;
  /** A view of a part of them. */
  view(byteOffset: number, byteLength: number): Uint8Array;
  /** What it lies in. Closing the buffer closes it. */
  readonly memory: Memory;
  tensor(type: TensorType, byteOffset?: number): HostTensor;
}

export interface DeviceTensor extends TensorType {
  readonly buffer: DeviceBuffer;
  readonly byteOffset: number;
}

export interface HostTensor extends DeviceTensor {
  readonly buffer: HostBuffer;
  /** The tensor's own bytes, as a view. */
  readonly bytes: Uint8Array;
}

export interface Executable {
  /** The graph that was compiled, with its own names. */
  readonly graph: Graph;
  /**
   * Prepares a run: every graph input and output gets a tensor of exactly its type (checked), of
   * either space. An output may be the very tensor of an input only where `mayAlias` says so.
   */
  bind(tensors: Bindings): Binding;
  /**
   * Whether output may share memory with input: all nodes between them work element by element, in
   * place.
   */
  mayAlias(output: string, input: string): boolean;
  close(): void;
}

export interface Bindings {
  readonly inputs: Readonly<Record<string, DeviceTensor>>;
  readonly outputs: Readonly<Record<string, DeviceTensor>>;
}

/** A run that can be repeated. Runs of one binding must not overlap. */
export interface Binding {
  /**
   * Off the JavaScript thread. Rejects with ENGINE_FAILED, or the signal's reason; outputs are then
   * undefined.
   */
  run(options?: RunOptions): Promise<void>;
  /** On the JavaScript thread, for runs of microseconds. */
  runSync(): void;
  close(): void;
}

export interface RunOptions {
  /** Ends the run between two of its nodes. */
  readonly signal?: AbortSignal;
}
