/** The reference interpreter as an engine: slow and plain, for tests that compare engines. */
import { LockstepError } from "../../errors.ts";
import { type Graph, validateGraph } from "../../graph/index.ts";
import { allocateMemory, type Memory } from "../../memory/index.ts";
import { operatorTable } from "../../ops/index.ts";
import { interpret } from "../../reference/index.ts";
import type { Tensor } from "../../tensor/index.ts";
import { mayAlias } from "../alias.ts";
import { type CheckedBindings, checkBindings } from "../bindings.ts";
import { MemoryBuffer } from "../buffer.ts";
import type {
  AllocateOptions,
  Binding,
  Bindings,
  Engine,
  EngineBuffer,
  Executable,
  RunOptions,
} from "../engine.ts";

export function createReferenceEngine(): Engine {
  return new ReferenceEngine();
}

class ReferenceEngine implements Engine {
  readonly name = "reference";
  readonly version = "lockstep reference interpreter";
  readonly threads = 1;
  readonly #buffers = new Set<MemoryBuffer>();
  readonly #executables = new Set<ReferenceExecutable>();
  readonly #running = new Set<Promise<void>>();
  #closed = false;

  allocate(byteLength: number, options: AllocateOptions = {}): EngineBuffer {
    this.#open();
    return this.attach(allocateMemory(byteLength, options));
  }

  attach(memory: Memory): EngineBuffer {
    this.#open();
    const buffer = new MemoryBuffer(memory, this, (closed) => this.#buffers.delete(closed));
    this.#buffers.add(buffer);
    return buffer;
  }

  compile(graph: Graph): Promise<Executable> {
    return Promise.resolve().then(() => {
      this.#open();
      for (const { op, name } of graph.nodes) {
        if (operatorTable.find(op) !== undefined) continue;
        throw new LockstepError("ENGINE_FAILED", `${name}: no kernel for operator "${op}".`);
      }
      const executable = new ReferenceExecutable(validateGraph(graph), this, this.#running);
      this.#executables.add(executable);
      return executable;
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const executable of this.#executables) executable.close();
    for (const buffer of this.#buffers) buffer.close();
    await Promise.allSettled(this.#running);
  }

  #open(): void {
    if (this.#closed) throw new LockstepError("ENGINE_CLOSED", "This engine was closed.");
  }
}

class ReferenceExecutable implements Executable {
  readonly graph: Graph;
  readonly #engine: object;
  readonly #running: Set<Promise<void>>;
  readonly #bindings: ReferenceBinding[] = [];
  #closed = false;

  constructor(graph: Graph, engine: object, running: Set<Promise<void>>) {
    this.graph = graph;
    this.#engine = engine;
    this.#running = running;
  }

  bind(tensors: Bindings): Binding {
    if (this.#closed) {
      throw new LockstepError("ENGINE_CLOSED", `Graph "${this.graph.name}" was closed.`);
    }
    const checked = checkBindings(this.graph, tensors, this.#engine, (output, input) =>
      this.mayAlias(output, input),
    );
    const binding = new ReferenceBinding(this.graph, checked, this.#running);
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
  readonly #buffers: ReadonlySet<MemoryBuffer>;
  readonly #running: Set<Promise<void>>;
  #closed = false;
  #busy = false;

  constructor(graph: Graph, { inputs, outputs }: CheckedBindings, running: Set<Promise<void>>) {
    this.#graph = graph;
    this.#running = running;
    this.#inputs = inputs.map(({ dtype, shape, bytes }) => ({ dtype, shape, bytes }));
    this.#outputs = outputs.map(({ bytes }) => bytes);
    this.#buffers = new Set([...inputs, ...outputs].map(({ buffer }) => buffer));
  }

  async run(options: RunOptions = {}): Promise<void> {
    options.signal?.throwIfAborted();
    this.#check();
    this.#busy = true;
    for (const buffer of this.#buffers) buffer.pin();
    const computing = Promise.resolve().then(() => this.#compute());
    this.#running.add(computing);
    try {
      await computing;
    } finally {
      this.#running.delete(computing);
      this.#busy = false;
      for (const buffer of this.#buffers) buffer.unpin();
    }
  }

  runSync(): void {
    this.#check();
    this.#compute();
  }

  close(): void {
    this.#closed = true;
  }

  #check(): void {
    if (this.#closed) throw new LockstepError("ENGINE_CLOSED", "This binding was closed.");
    if (this.#busy) {
      throw new LockstepError("INVALID_BINDING", "Two runs of one binding overlap.");
    }
    for (const { closed } of this.#buffers) {
      if (closed) throw new LockstepError("ENGINE_CLOSED", "A buffer of this binding was closed.");
    }
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
