/** A program with memory and an engine: the only place where its stages run. */

import type { Binding, Engine, EngineBuffer, EngineTensor, Executable } from "../engine/index.ts";
import { assert } from "../errors.ts";
import { inLanes } from "./lanes.ts";
import type { Program, Run, Stage, TensorRef } from "./program.ts";

export interface InstanceOptions {
  /** Buffers get names that other processes can map: `PREFIX-BUFFER`. Without it they are private. */
  readonly shareAs?: string | undefined;
}

/** Allocates all buffers and compiles all graphs. Throws ENGINE_FAILED; nothing is left behind then. */
export async function instantiate(
  engine: Engine,
  program: Program,
  options: InstanceOptions = {},
): Promise<Instance> {
  const buffers = new Map<string, EngineBuffer>();
  const executables = new Map<string, Executable>();
  try {
    for (const [name, byteLength] of program.buffers) {
      const share =
        options.shareAs === undefined ? {} : { shareAs: sharedName(options.shareAs, name) };
      buffers.set(name, engine.allocate(byteLength, share));
    }
    await inLanes([...program.graphs], engine.threads, async ([name, { graph, threads }]) => {
      executables.set(name, await engine.compile(graph, threads === "all" ? {} : { threads }));
    });
    return new Instance(engine.threads, buffers, executables);
  } catch (error) {
    for (const executable of executables.values()) executable.close();
    for (const buffer of buffers.values()) buffer.close();
    throw error;
  }
}

export class Instance {
  readonly #lanes: number;
  readonly #buffers: ReadonlyMap<string, EngineBuffer>;
  readonly #executables: ReadonlyMap<string, Executable>;
  readonly #tensors = new Map<string, EngineTensor>();
  readonly #bindings = new Map<Stage, readonly Binding[]>();

  constructor(
    lanes: number,
    buffers: ReadonlyMap<string, EngineBuffer>,
    executables: ReadonlyMap<string, Executable>,
  ) {
    this.#lanes = lanes;
    this.#buffers = buffers;
    this.#executables = executables;
  }

  buffer(name: string): EngineBuffer {
    const buffer = this.#buffers.get(name);
    assert(buffer !== undefined, `the program has a buffer "${name}"`);
    return buffer;
  }

  tensor(ref: TensorRef): EngineTensor {
    const key = `${ref.buffer}:${ref.byteOffset}:${ref.type.dtype}:${ref.type.shape.join("x")}`;
    let tensor = this.#tensors.get(key);
    if (tensor === undefined) {
      tensor = this.buffer(ref.buffer).tensor(ref.type, ref.byteOffset);
      this.#tensors.set(key, tensor);
    }
    return tensor;
  }

  /** Runs a stage to its end. After a failure no run of it is under way. */
  async run(stage: Stage, signal?: AbortSignal): Promise<void> {
    const bindings = this.#bind(stage);
    if (stage.mode === "small") {
      for (const binding of bindings) binding.runSync();
      return;
    }
    const options = signal === undefined ? {} : { signal };
    const lanes = stage.mode === "parallel" ? this.#lanes : 1;
    await inLanes(bindings, lanes, (binding) => binding.run(options));
  }

  /** Closes graphs and memory. */
  close(): void {
    for (const executable of this.#executables.values()) executable.close();
    for (const buffer of this.#buffers.values()) buffer.close();
    this.#bindings.clear();
    this.#tensors.clear();
  }

  #bind(stage: Stage): readonly Binding[] {
    let bindings = this.#bindings.get(stage);
    if (bindings === undefined) {
      bindings = stage.runs.map((run) => this.#bindRun(run));
      this.#bindings.set(stage, bindings);
    }
    return bindings;
  }

  #bindRun({ graph, inputs, outputs }: Run): Binding {
    const executable = this.#executables.get(graph);
    assert(executable !== undefined, `the program has a graph "${graph}"`);
    return executable.bind({ inputs: this.#tensorsOf(inputs), outputs: this.#tensorsOf(outputs) });
  }

  #tensorsOf(refs: Readonly<Record<string, TensorRef>>): Record<string, EngineTensor> {
    return Object.fromEntries(Object.entries(refs).map(([name, ref]) => [name, this.tensor(ref)]));
  }
}

/** Under which name other processes find a buffer: `PREFIX-parameters`, `PREFIX-states-0`. */
export function sharedName(prefix: string, buffer: string): string {
  return `${prefix}-${buffer.replace(/[^\w-]/g, "-")}`;
}
