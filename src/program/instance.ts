/** A program with memory and an engine: the only place where its stages run. */

import type { Group, GroupBuffer, Prepared } from "../collectives/index.ts";
import type { Binding, Engine, EngineBuffer, EngineTensor, Executable } from "../engine/index.ts";
import { assert } from "../errors.ts";
import { inLanes } from "./lanes.ts";
import type { CollectiveStage, Program, Run, RunStage, Stage, TensorRef } from "./program.ts";

export interface InstanceOptions {
  /** Buffers get names that other processes can map: `PREFIX-BUFFER`. Without it they are private. */
  readonly shareAs?: string | undefined;
  /** The other ranks, for programs with collectives. It owns the shared buffers and is closed after the instance. */
  readonly group?: Group | undefined;
}

/** Allocates all buffers and compiles all graphs. Throws ENGINE_FAILED; nothing is left behind then. */
export async function instantiate(
  engine: Engine,
  program: Program,
  options: InstanceOptions = {},
): Promise<Instance> {
  const buffers = new Map<string, EngineBuffer>();
  const executables = new Map<string, Executable>();
  const shared = new Map<string, GroupBuffer>();
  const { group } = options;
  try {
    for (const [name, byteLength] of program.buffers) {
      if (program.shared.has(name)) {
        assert(group !== undefined, "a program with collectives has a group");
        shared.set(name, await group.allocate(byteLength));
        continue;
      }
      const share =
        options.shareAs === undefined ? {} : { shareAs: sharedName(options.shareAs, name) };
      buffers.set(name, engine.allocate(byteLength, share));
    }
    await inLanes([...program.graphs], engine.threads, async ([name, { graph, threads }]) => {
      executables.set(name, await engine.compile(graph, threads === "all" ? {} : { threads }));
    });
    return new Instance(engine.threads, { buffers, shared, executables, group });
  } catch (error) {
    for (const executable of executables.values()) executable.close();
    for (const buffer of buffers.values()) buffer.close();
    throw error;
  }
}

interface InstanceParts {
  readonly buffers: ReadonlyMap<string, EngineBuffer>;
  readonly shared: ReadonlyMap<string, GroupBuffer>;
  readonly executables: ReadonlyMap<string, Executable>;
  readonly group: Group | undefined;
}

export class Instance {
  readonly #lanes: number;
  readonly #buffers: ReadonlyMap<string, EngineBuffer>;
  readonly #executables: ReadonlyMap<string, Executable>;
  readonly #tensors = new Map<string, EngineTensor>();
  readonly #bindings = new Map<RunStage, readonly Binding[]>();
  readonly #shared: ReadonlyMap<string, GroupBuffer>;
  readonly #group: Group | undefined;
  readonly #prepared = new Map<CollectiveStage, Prepared>();

  constructor(lanes: number, parts: InstanceParts) {
    this.#lanes = lanes;
    this.#buffers = parts.buffers;
    this.#shared = parts.shared;
    this.#executables = parts.executables;
    this.#group = parts.group;
  }

  /** `NAME`, or a peer's: `NAME@RANK`. */
  buffer(name: string): EngineBuffer {
    const [own = name, rank] = name.split("@");
    const shared = this.#shared.get(own);
    if (shared !== undefined) return rank === undefined ? shared.own : shared.of(Number(rank));
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
    if (stage.mode === "collective") return this.#collective(stage);
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

  /** Prepared when it is first run: all ranks come to it in one order. */
  async #collective(stage: CollectiveStage): Promise<void> {
    const group = this.#group;
    assert(group !== undefined, "a program with collectives has a group");
    const { call, data, into } = stage;
    if (call.kind === "barrier") return group.barrier();
    let prepared = this.#prepared.get(stage);
    if (prepared === undefined) {
      assert(data !== undefined, `"${stage.name}" says where its data lie`);
      const target = into && {
        into: this.#sharedBuffer(into.buffer),
        intoByteOffset: into.byteOffset,
      };
      const source = { data: this.#sharedBuffer(data.buffer), byteOffset: data.byteOffset };
      prepared = await group.prepare(call, { ...source, ...target });
      this.#prepared.set(stage, prepared);
    }
    await prepared.run();
  }

  #sharedBuffer(name: string): GroupBuffer {
    const buffer = this.#shared.get(name);
    assert(buffer !== undefined, `"${name}" is a shared buffer`);
    return buffer;
  }

  #bind(stage: RunStage): readonly Binding[] {
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
