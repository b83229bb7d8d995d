/**
 * The interface of engines. A device owns memory and compiled graphs; it never opens a socket and
 * knows no gradient. Implementations: `ort-native` (ONNX Runtime's C API, on the CPU) and
 * `reference` (plain and slow, for tests; its device memory cannot be reached as bytes).
 */
import type { Graph } from "../graph/index.ts";
import type { Memory } from "../memory/index.ts";
import type { Tensor, TensorType } from "../tensor/index.ts";

export interface Device {
  readonly name: string;
  /** The name and version of the library, for reports: `onnxruntime 1.30.0`. */
  readonly version: string;
  /**
   * The number of threads that one execution may use; all executables of a device share one pool.
   */
  readonly threads: number;
  /**
   * Allocates zeroed memory of the device, aligned to 64 bytes. Its contents are accessible only to
   * executions, `upload`, `download` and `copy`.
   */
  allocate(byteLength: number): DeviceBuffer;
  /**
   * Allocates zeroed memory of this process, aligned to 64 bytes. It can be read and written as
   * bytes, and by executions of this device.
   */
  allocateHost(byteLength: number, options?: AllocateHostOptions): HostBuffer;
  /**
   * Memory of another process or a file (`openMemory`, `mapFile`) as a buffer, which then owns it.
   */
  attach(memory: Memory): HostBuffer;
  /**
   * The form of a graph that this device executes, with the same values, inputs and outputs. A
   * graph is cut into pieces in this form, so that the pieces give the same bits as the whole.
   */
  prepare(graph: Graph): Graph;
  /**
   * Compiles a graph. Graphs that are equal in structure share one compiled session, whatever their
   * names. Throws ENGINE_FAILED with the engine's own message.
   */
  compile(graph: Graph, options?: CompileOptions): Promise<Executable>;
  /**
   * Writes a tensor's bytes. Executions, copies and downloads that are requested afterwards see
   * them. Throws SHAPE_MISMATCH for another number of bytes.
   */
  upload(into: DeviceTensor, bytes: Uint8Array): void;
  /**
   * Returns a tensor's contents after all executions that have ended. If the memory belongs to this
   * process (host memory, or a CPU device), the contents are a view, not a copy: read them before
   * the next write, and do not write to them.
   */
  download(from: DeviceTensor): Promise<Tensor>;
  /**
   * Copies one tensor's contents to another tensor of the same number of bytes, in either space.
   * Rejects with SHAPE_MISMATCH.
   */
  copy(from: DeviceTensor, to: DeviceTensor): Promise<void>;
  /** Releases everything. Using anything made by this device afterwards throws ENGINE_CLOSED. */
  close(): Promise<void>;
}

export interface AllocateHostOptions {
  /** A name by which other processes can map the memory. Default: the memory is private. */
  readonly shareAs?: string;
}

export interface CompileOptions {
  /**
   * The number of threads of one execution. With 1, it runs on the calling thread, and several
   * executions may run at once. Default: the device's number.
   */
  readonly threads?: number;
}

/**
 * Where a buffer lies: in memory of the device, or in memory that this process can read and write
 * as well.
 */
export type Space = "device" | "host";

/**
 * A piece of memory that executions read and write. Only a buffer of space `host` has bytes: see
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

/**
 * A buffer in memory of this process. `bytes` is a view of the memory, so executions read what is
 * written there.
 */
export interface HostBuffer extends DeviceBuffer {
  readonly space: "host";
  readonly bytes: Uint8Array;
  /** The memory of the buffer. Closing the buffer closes it. */
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
   * Prepares an execution: every graph input and output gets a tensor of exactly its type
   * (checked), of either space. An output may use the tensor of an input only where `mayAlias`
   * allows it.
   */
  bind(tensors: Bindings): Binding;
  /**
   * Whether an output may share memory with an input: all nodes between them must work element by
   * element, in place.
   */
  mayAlias(output: string, input: string): boolean;
  close(): void;
}

export interface Bindings {
  readonly inputs: Readonly<Record<string, DeviceTensor>>;
  readonly outputs: Readonly<Record<string, DeviceTensor>>;
}

/** An execution that can be repeated. Executions of one binding must not overlap. */
export interface Binding {
  /**
   * Executes off the JavaScript thread. Rejects with ENGINE_FAILED, or with the signal's reason;
   * the outputs are then undefined.
   */
  run(options?: RunOptions): Promise<void>;
  /** Executes on the JavaScript thread, for graphs that take microseconds. */
  runSync(): void;
  close(): void;
}

export interface RunOptions {
  /** Ends the execution between two of its nodes. */
  readonly signal?: AbortSignal;
}
