/**
 * The CPU as a device, over ONNX Runtime's C interface. Graphs of equal structure share sessions;
 * executions run off the JavaScript thread; tensors refer to memory that is never copied. Device
 * memory is memory of this process, so a download is a view.
 */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { LockstepError } from "../../errors.ts";
import { fileError } from "../../files/index.ts";
import { type Graph, hashGraph, type OperatorTable } from "../../graph/index.ts";
import { allocateMemory, type Memory } from "../../memory/index.ts";
import { encodeModel } from "../../onnx/index.ts";
import { operatorTable } from "../../ops/index.ts";
import {
  anything,
  checkOptions,
  flag,
  notNegative,
  type OptionKinds,
  word,
} from "../../options.ts";
import type { Tensor } from "../../tensor/index.ts";
import { checkOwn, checkTransfer } from "../bindings.ts";
import { MemoryBuffer, MemoryTensor } from "../buffer.ts";
import type {
  AllocateHostOptions,
  AllocateOptions,
  CompileOptions,
  Device,
  DeviceBuffer,
  DeviceTensor,
  Executable,
  HostBuffer,
  Space,
} from "../engine.ts";
import type { ArenaStatistics } from "./arena.ts";
import { SessionCache } from "./cache.ts";
import { OrtExecutable } from "./executable.ts";
import { findOrtLibrary } from "./library.ts";
import { lowerGraph } from "./lower.ts";
import { acquireRuntime, type Runtime } from "./runtime.ts";
import { createSession, fastForm } from "./session.ts";

export interface OrtEngineOptions {
  /**
   * The number of threads of one execution. The first engine of a process sizes the pool that all
   * engines share. Default: all cores.
   */
  readonly threads?: number;
  /**
   * Whether idle threads of the pool spin for some milliseconds before they sleep, which runs small
   * graphs a quarter faster. Use false if several processes share the cores. Default: true.
   */
  readonly spin?: boolean;
  /** A folder to which each compiled graph is written as an `.onnx` file. */
  readonly dump?: string;
  /**
   * A folder to which the profile of each session is written, in Chrome's trace format, when the
   * session is released.
   */
  readonly profile?: string;
  /**
   * The path of libonnxruntime. Default: LOCKSTEP_ORT_LIBRARY, or else the package's own library.
   */
  readonly library?: string;
  /**
   * If all constants together have more bytes than this, large ones are read in place. Default: 256
   * MiB.
   */
  readonly maxEmbeddedBytes?: number;
  /** The table of operators, which says where outputs may alias inputs. */
  readonly operators?: OperatorTable;
}

export interface OrtEngine extends Device {
  /**
   * The memory that sessions hold for activations; undefined before the first graph, and before
   * ONNX Runtime 1.23.
   */
  arena(): ArenaStatistics | undefined;
}

/**
 * The schemas of the options of an engine; the number of threads is checked when the pool is made.
 */
const ENGINE_OPTIONS: OptionKinds<OrtEngineOptions> = {
  threads: anything.optional(),
  spin: flag.optional(),
  dump: word.optional(),
  profile: word.optional(),
  library: word.optional(),
  maxEmbeddedBytes: notNegative.optional(),
  operators: anything.optional(),
};

/** Throws ENGINE_LIBRARY, INVALID_OPTION. */
export function createOrtEngine(options: OrtEngineOptions = {}): OrtEngine {
  checkOptions("createOrtEngine", options, ENGINE_OPTIONS);
  return new NativeEngine(options);
}

class NativeEngine implements OrtEngine {
  readonly name = "ort-native";
  readonly version: string;
  readonly threads: number;
  readonly #runtime: Runtime;
  readonly #options: OrtEngineOptions;
  readonly #sessions = new SessionCache();
  readonly #buffers = new Set<MemoryBuffer>();
  readonly #executables = new Set<OrtExecutable>();
  readonly runs = { begun: 0, ended: 0 };
  readonly #running = new Set<Promise<unknown>>();
  #closing: Promise<void> | undefined;

  constructor(options: OrtEngineOptions) {
    this.#options = options;
    this.threads = checkThreads(options.threads ?? os.availableParallelism());
    for (const folder of [options.dump, options.profile]) {
      if (folder !== undefined) writing(folder, () => fs.mkdirSync(folder, { recursive: true }));
    }
    const library = findOrtLibrary(options.library);
    this.#runtime = acquireRuntime(library, this.threads, options.spin ?? true);
    this.version = `onnxruntime ${this.#runtime.api.version}`;
  }

  allocate(byteLength: number, options: AllocateOptions = {}): DeviceBuffer {
    this.#open();
    return this.#buffer(allocateMemory(byteLength, options), "device");
  }

  allocateHost(byteLength: number, options: AllocateHostOptions = {}): HostBuffer {
    this.#open();
    return this.#buffer(allocateMemory(byteLength, options), "host");
  }

  attach(memory: Memory): HostBuffer {
    this.#open();
    return this.#buffer(memory, "host");
  }

  #buffer<S extends Space>(memory: Memory, space: S): MemoryBuffer<S> {
    const buffer = new MemoryBuffer(memory, space, this, (closed) => this.#buffers.delete(closed));
    this.#buffers.add(buffer);
    return buffer;
  }

  upload(into: DeviceTensor, bytes: Uint8Array): void {
    checkTransfer(into, bytes.byteLength);
    this.#own(into).bytes.set(bytes);
  }

  async download(from: DeviceTensor): Promise<Tensor> {
    const { dtype, shape, bytes } = this.#own(from);
    return { dtype, shape, bytes };
  }

  async copy(from: DeviceTensor, to: DeviceTensor): Promise<void> {
    const { bytes } = this.#own(from);
    checkTransfer(to, bytes.byteLength);
    this.#own(to).bytes.set(bytes);
  }

  #own(tensor: DeviceTensor): MemoryTensor {
    return checkOwn(tensor, (given) => this.#isOwn(given));
  }

  #isOwn(tensor: DeviceTensor): tensor is MemoryTensor {
    return tensor instanceof MemoryTensor && tensor.buffer.owner === this;
  }

  prepare(graph: Graph): Graph {
    return fastForm(graph);
  }

  async compile(graph: Graph, options: CompileOptions = {}): Promise<Executable> {
    this.#open();
    const threads = checkThreads(options.threads ?? this.threads);
    const hash = hashGraph(graph);
    this.#dump(graph, hash);
    const label = `${fileName(graph.name)}-${hash.slice(0, 8)}`;
    const { profile, spin = true } = this.#options;
    const compiling = this.#sessions.take(`${hash}:${threads}`, () =>
      createSession(this.#runtime, graph, {
        threads,
        spin,
        maxEmbeddedBytes: this.#options.maxEmbeddedBytes,
        profile: profile === undefined ? undefined : path.join(profile, label),
      }),
    );
    this.#running.add(compiling);
    try {
      const share = await compiling;
      if (this.#closing !== undefined) {
        share.release();
        this.#open();
      }
      const executable = new OrtExecutable(graph, share, {
        isOwn: (tensor): tensor is MemoryTensor => this.#isOwn(tensor),
        runtime: this.#runtime,
        operators: this.#options.operators ?? operatorTable,
        running: this.#running,
        runs: this.runs,
        closed: (closed) => this.#executables.delete(closed),
      });
      this.#executables.add(executable);
      return executable;
    } finally {
      this.#running.delete(compiling);
    }
  }

  arena(): ArenaStatistics | undefined {
    this.#open();
    const [executable] = this.#executables;
    return executable && this.#runtime.arena.read(executable.session.handle);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    for (const executable of this.#executables) executable.close();
    for (const buffer of this.#buffers) buffer.close();
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
    this.#runtime.release();
  }

  #open(): void {
    if (this.#closing === undefined) return;
    throw new LockstepError("ENGINE_CLOSED", "This engine was closed.");
  }

  #dump(graph: Graph, hash: string): void {
    const folder = this.#options.dump;
    if (folder === undefined) return;
    const file = path.join(folder, `${fileName(graph.name)}-${hash.slice(0, 8)}.onnx`);
    const lowered = lowerGraph(graph, this.#options.maxEmbeddedBytes).graph;
    writing(file, () => fs.writeFileSync(file, encodeModel(lowered, { valueTypes: true })));
  }
}

/** Writes a file. Throws DISK_FULL or IO_FAILED. */
function writing(place: string, write: () => void): void {
  try {
    write();
  } catch (error) {
    throw fileError(error, "write", place);
  }
}

function checkThreads(threads: number): number {
  if (Number.isInteger(threads) && threads >= 1 && threads <= 1024) return threads;
  throw new LockstepError(
    "INVALID_OPTION",
    `threads must be a whole number from 1 to 1024, got ${threads}.`,
    {
      fields: { threads },
    },
  );
}

function fileName(name: string): string {
  return name.replace(/[^\w.-]+/g, "_").slice(0, 100) || "graph";
}
