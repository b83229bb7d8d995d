/**
 * The reference interpreter as a device: slow and plain, for tests that compare devices. Its own
 * memory is opaque, so code that treats device memory as bytes of this process fails on it.
 */
import { LockstepError } from "../../errors.ts";
import { type Graph, validateGraph } from "../../graph/index.ts";
import { allocateMemory, type Memory } from "../../memory/index.ts";
import { operatorTable } from "../../ops/index.ts";
import { interpret } from "../../reference/index.ts";
import type { Tensor } from "../../tensor/index.ts";
import { mayAlias } from "../alias.ts";
import { type CheckedBindings, checkBindings, checkOwn, checkTransfer } from "../bindings.ts";
import { MemoryBuffer, MemoryTensor } from "../buffer.ts";
import type {
  AllocateHostOptions,
  Binding,
  Bindings,
  Device,
  DeviceBuffer,
  DeviceTensor,
  Executable,
  HostBuffer,
  RunCounts,
  RunOptions,
} from "../engine.ts";
import { closed, contentsOf, OpaqueBuffer, OpaqueTensor } from "./opaque.ts";

export function createReferenceEngine(): Device {
  return new ReferenceDevice();
}

type OwnTensor = MemoryTensor | OpaqueTensor;

class ReferenceDevice implements Device {
  readonly name = "reference";
  readonly version = "lockstep reference interpreter";
  readonly threads = 1;
  readonly runs = { begun: 0, ended: 0 };
  readonly #buffers = new Set<OpaqueBuffer | MemoryBuffer>();
  readonly #executables = new Set<ReferenceExecutable>();
  readonly #running = new Set<Promise<void>>();
  #closed = false;

  allocate(byteLength: number): DeviceBuffer {
    this.#open();
    const buffer = new OpaqueBuffer(byteLength, this, (gone) => this.#buffers.delete(gone));
    this.#buffers.add(buffer);
    return buffer;
  }

  allocateHost(byteLength: number, options: AllocateHostOptions = {}): HostBuffer {
    this.#open();
    return this.attach(allocateMemory(byteLength, options));
  }

  attach(memory: Memory): HostBuffer {
    this.#open();
    const buffer = new MemoryBuffer(memory, "host", this, (gone) => this.#buffers.delete(gone));
    this.#buffers.add(buffer);
    return buffer;
  }

  prepare(graph: Graph): Graph {
    return graph;
  }

  compile(graph: Graph): Promise<Executable> {
    return Promise.resolve().then(() => {
      this.#open();
      for (const { op, name } of graph.nodes) {
        if (operatorTable.find(op) !== undefined) continue;
        throw new LockstepError("ENGINE_FAILED", `${name}: no kernel for operator "${op}".`);
      }
      const executable = new ReferenceExecutable(
        validateGraph(graph),
        this.#isOwn,
        this.#running,
        this.runs,
      );
      this.#executables.add(executable);
      return executable;
    });
  }

  upload(into: DeviceTensor, bytes: Uint8Array): void {
    checkTransfer(into, bytes.byteLength);
    this.#bytes(into).set(bytes);
  }

  /** Returns a copy later, like a device whose memory is not this process's own. */
  download(from: DeviceTensor): Promise<Tensor> {
    return Promise.resolve().then(() => {
      const { dtype, shape } = from;
      return { dtype, shape, bytes: Uint8Array.from(this.#bytes(from)) };
    });
  }

  async copy(from: DeviceTensor, to: DeviceTensor): Promise<void> {
    const bytes = this.#bytes(from);
    checkTransfer(to, bytes.byteLength);
    this.#bytes(to).set(bytes);
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const executable of this.#executables) executable.close();
    for (const buffer of this.#buffers) buffer.close();
    await Promise.allSettled(this.#running);
  }

  readonly #isOwn = (tensor: DeviceTensor): tensor is OwnTensor =>
    (tensor instanceof MemoryTensor || tensor instanceof OpaqueTensor) &&
    tensor.buffer.owner === this;

  #bytes(tensor: DeviceTensor): Uint8Array {
    const own = checkOwn(tensor, this.#isOwn);
    if (own.buffer.closed) throw closed();
    return bytesOf(own);
  }

  #open(): void {
    if (this.#closed) throw new LockstepError("ENGINE_CLOSED", "This engine was closed.");
  }
}

function bytesOf(tensor: OwnTensor): Uint8Array {
  return tensor instanceof OpaqueTensor ? contentsOf(tensor) : tensor.bytes;
}

class ReferenceExecutable implements Executable {
  readonly graph: Graph;
  readonly #isOwn: (tensor: DeviceTensor) => tensor is OwnTensor;
  readonly #running: Set<Promise<void>>;
  readonly #runs: RunCounts;
  readonly #bindings: ReferenceBinding[] = [];
  #closed = false;

  constructor(
    graph: Graph,
    isOwn: (tensor: DeviceTensor) => tensor is OwnTensor,
    running: Set<Promise<void>>,
    runs: RunCounts,
  ) {
    this.graph = graph;
    this.#isOwn = isOwn;
    this.#running = running;
    this.#runs = runs;
  }

  bind(tensors: Bindings): Binding {
    if (this.#closed) {
      throw new LockstepError("ENGINE_CLOSED", `Graph "${this.graph.name}" was closed.`);
    }
    const checked = checkBindings(this.graph, tensors, {
      isOwn: this.#isOwn,
      mayAlias: (output, input) => this.mayAlias(output, input),
    });
    const binding = new ReferenceBinding(this.graph, checked, this.#running, this.#runs);
    this.#bindings.push(binding);
    return binding;
  }

  mayAlias(output: string, input: string): boolean {
    return mayAlias(this.graph, operatorTable, output, input);
  }

  close(): void {
    this.#closed = true;
    for (const binding of this.#bindings.splice(0)) binding.close();
  }
}

class ReferenceBinding implements Binding {
  readonly #graph: Graph;
  readonly #inputs: readonly Tensor[];
  readonly #outputs: readonly Uint8Array[];
  readonly #buffers: ReadonlySet<OpaqueBuffer | MemoryBuffer>;
  readonly #running: Set<Promise<void>>;
  readonly #runs: RunCounts;
  #closed = false;
  #busy = false;

  constructor(
    graph: Graph,
    { inputs, outputs }: CheckedBindings<OwnTensor>,
    running: Set<Promise<void>>,
    runs: RunCounts,
  ) {
    this.#graph = graph;
    this.#running = running;
    this.#runs = runs;
    this.#inputs = inputs.map((own) => ({
      dtype: own.dtype,
      shape: own.shape,
      bytes: bytesOf(own),
    }));
    this.#outputs = outputs.map(bytesOf);
    this.#buffers = new Set([...inputs, ...outputs].map(({ buffer }) => buffer));
  }

  async run(options: RunOptions = {}): Promise<void> {
    options.signal?.throwIfAborted();
    this.#check();
    this.#busy = true;
    for (const buffer of this.#buffers) if (buffer instanceof MemoryBuffer) buffer.pin();
    this.#runs.begun += 1;
    const computing = Promise.resolve().then(() => this.#compute());
    this.#running.add(computing);
    try {
      await computing;
    } finally {
      this.#running.delete(computing);
      this.#busy = false;
      this.#runs.ended += 1;
      for (const buffer of this.#buffers) if (buffer instanceof MemoryBuffer) buffer.unpin();
    }
  }

  runSync(): void {
    this.#check();
    this.#runs.begun += 1;
    try {
      this.#compute();
    } finally {
      this.#runs.ended += 1;
    }
  }

  close(): void {
    this.#closed = true;
  }

  #check(): void {
    if (this.#closed) throw new LockstepError("ENGINE_CLOSED", "This binding was closed.");
    if (this.#busy) {
      throw new LockstepError("INVALID_BINDING", "Two runs of one binding overlap.");
    }
    for (const buffer of this.#buffers) if (buffer.closed) throw closed();
  }

  #compute(): void {
    const inputs: Record<string, Tensor> = {};
    for (const [index, name] of this.#graph.inputs.entries()) {
      const tensor = this.#inputs[index];
      if (tensor !== undefined) inputs[name] = tensor;
    }
    const results = interpret(this.#graph, inputs);
    for (const [index, name] of this.#graph.outputs.entries()) {
      const bytes = results[name]?.bytes;
      if (bytes !== undefined) this.#outputs[index]?.set(bytes);
    }
  }
}
