/** A program with memory and an engine: the only place where its stages run. */

import type { Group, GroupBuffer, Prepared } from "../collectives/index.ts";
import type { Binding, Engine, EngineBuffer, EngineTensor, Executable } from "../engine/index.ts";
import { assert } from "../errors.ts";
import { executeTasks } from "./execute.ts";
import { inLanes } from "./lanes.ts";
import {
  type BufferPlace,
  COMPUTE,
  type CollectiveStage,
  type Program,
  peerOf,
  type Run,
  type RunStage,
  type Stage,
  type Task,
  type TaskStage,
  type TensorRef,
} from "./program.ts";

export interface InstanceOptions {
  /** Buffers get names that other processes can map: `PREFIX-BUFFER`. Without it they are private. */
  readonly shareAs?: string | undefined;
  /** All ranks, for programs with collectives. It owns the shared buffers, and is closed after the instance. */
  readonly group?: Group | undefined;
}

export interface StageOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called for each segment of a stage of tasks, to measure what a rank computes for itself. */
  readonly around?: (body: () => Promise<void>) => Promise<void>;
}

/** Allocates all buffers and compiles all graphs. Throws ENGINE_FAILED; nothing is left behind then. */
export async function instantiate(
  engine: Engine,
  program: Program,
  options: InstanceOptions = {},
): Promise<Instance> {
  const instance = new Instance(engine, options);
  try {
    await instance.load(program);
    return instance;
  } catch (error) {
    instance.close();
    throw error;
  }
}

export class Instance {
  readonly #engine: Engine;
  readonly #options: InstanceOptions;
  readonly #buffers = new Map<string, EngineBuffer>();
  readonly #executables = new Map<string, Executable>();
  readonly #tensors = new Map<string, EngineTensor>();
  readonly #bindings = new Map<RunStage, readonly Binding[]>();
  readonly #shared = new Map<string, GroupBuffer>();
  /** The groups of the program, by name. */
  readonly #groups = new Map<string, Group>();
  /** The ranks of each. */
  readonly #ranks = new Map<string, readonly number[]>();
  /** Shared memory as groups of some of the ranks see it: by group and name. */
  readonly #lent = new Map<string, GroupBuffer>();
  readonly #prepared = new Map<CollectiveStage, Prepared>();

  /** @internal Use `instantiate`. */
  constructor(engine: Engine, options: InstanceOptions) {
    this.#engine = engine;
    this.#options = options;
  }

  /**
   * Makes room for a program, and compiles what is new in it; all ranks do it between the same steps. Buffers that are
   * large enough, and graphs that it has too, are kept by name; a buffer that has to grow starts as zeros.
   */
  async load(program: Program): Promise<void> {
    this.#forgetBindings();
    await this.#openGroups(program);
    for (const [name, executable] of this.#executables) {
      if (program.graphs.has(name)) continue;
      executable.close();
      this.#executables.delete(name);
    }
    for (const [name, byteLength] of program.buffers) {
      if (program.shared.has(name)) await this.#share(name, byteLength);
      else this.#allocate(name, byteLength);
    }
    const graphs = [...program.graphs].filter(([name]) => !this.#executables.has(name));
    await inLanes(graphs, this.#engine.threads, async ([name, { graph, threads }]) => {
      const options = threads === "all" ? {} : { threads };
      this.#executables.set(name, await this.#engine.compile(graph, options));
    });
  }

  /** `NAME`, or a peer's: `NAME@RANK`. */
  buffer(name: string): EngineBuffer {
    const { buffer: own, rank } = peerOf(name);
    const shared = this.#shared.get(own);
    if (shared !== undefined) return rank === undefined ? shared.own : shared.of(rank);
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
  async run(stage: Stage, options: StageOptions = {}): Promise<void> {
    if (stage.mode === "collective") return this.#collective(stage);
    if (stage.mode === "tasks") return this.#tasks(stage, options);
    const { signal } = options;
    const bindings = this.#bind(stage);
    if (stage.mode === "small") {
      for (const binding of bindings) binding.runSync();
      return;
    }
    const runOptions = signal === undefined ? {} : { signal };
    const lanes = stage.mode === "parallel" ? this.#engine.threads : 1;
    await inLanes(bindings, lanes, (binding) => binding.run(runOptions));
  }

  /** Closes graphs and memory. */
  close(): void {
    for (const executable of this.#executables.values()) executable.close();
    for (const buffer of this.#buffers.values()) buffer.close();
    this.#bindings.clear();
    this.#tensors.clear();
  }

  /** A failure ends the whole group: what waits for a peer would use memory that may be gone then. */
  async #tasks({ tasks }: TaskStage, options: StageOptions): Promise<void> {
    const { signal, around = (body) => body() } = options;
    const run = async ({ lane, work }: Task, ended: AbortSignal) => {
      const body = async () => {
        for (const stage of work) await this.run(stage, options);
      };
      const abort = () => this.#options.group?.transport.abort(ended.reason);
      ended.addEventListener("abort", abort, { once: true });
      try {
        await (lane === COMPUTE ? around(body) : body());
      } finally {
        ended.removeEventListener("abort", abort);
      }
    };
    try {
      await executeTasks(tasks, run, { signal });
    } catch (error) {
      this.#options.group?.transport.abort(error);
      throw error;
    }
  }

  /** Opens what is new among a program's groups of ranks. All ranks do it in the same order. */
  async #openGroups({ groups }: Program): Promise<void> {
    for (const [name, ranks] of groups) {
      const { group: all } = this.#options;
      assert(all !== undefined, "a program with groups of ranks is given all of them");
      if (this.#groups.has(name)) continue;
      this.#ranks.set(name, ranks);
      this.#groups.set(name, ranks.length === all.size ? all : await all.subgroup(ranks));
    }
  }

  async #share(name: string, byteLength: number): Promise<void> {
    const { group } = this.#options;
    assert(group !== undefined, `the shared buffer "${name}" has a group`);
    const before = this.#shared.get(name);
    // Where ranks' lengths differ they must not decide by them whether to allocate together.
    if (before !== undefined && before.byteLength === byteLength) return;
    this.#buffers.get(name)?.close();
    this.#buffers.delete(name);
    this.#shared.set(name, await group.allocate(byteLength));
    if (before !== undefined) group.release(before);
  }

  #allocate(name: string, byteLength: number): void {
    const before = this.#shared.get(name)?.own ?? this.#buffers.get(name);
    if (before !== undefined && before.byteLength >= byteLength) return;
    assert(!this.#shared.has(name), `the shared buffer "${name}" is large enough`);
    before?.close();
    const { shareAs } = this.#options;
    const share = shareAs === undefined ? {} : { shareAs: sharedName(shareAs, name) };
    this.#buffers.set(name, this.#engine.allocate(byteLength, share));
  }

  #forgetBindings(): void {
    for (const bindings of this.#bindings.values()) {
      for (const binding of bindings) binding.close();
    }
    for (const prepared of this.#prepared.values()) prepared.close();
    this.#bindings.clear();
    this.#prepared.clear();
    this.#tensors.clear();
  }

  /** Prepared when it is first run: all ranks come to it in one order. */
  async #collective(stage: CollectiveStage): Promise<void> {
    const { call, data, into } = stage;
    const group = this.#groupOf(stage.group);
    if (call.kind === "barrier") return group.barrier();
    let prepared = this.#prepared.get(stage);
    if (prepared === undefined) {
      assert(data !== undefined, `"${stage.name}" says where its data lie`);
      const target = into && {
        into: this.#place(stage.group, into),
        intoByteOffset: into.byteOffset,
      };
      const source = { data: this.#place(stage.group, data), byteOffset: data.byteOffset };
      prepared = await group.prepare(call, { ...source, ...target });
      this.#prepared.set(stage, prepared);
    }
    await prepared.run();
  }

  #groupOf(name: string): Group {
    const group = this.#groups.get(name);
    assert(group !== undefined, `the program has a group "${name}"`);
    return group;
  }

  /** The buffer as a group sees it. */
  #place(of: string, { buffer: name }: BufferPlace): GroupBuffer {
    const buffer = this.#shared.get(name);
    assert(buffer !== undefined, `"${name}" is a shared buffer`);
    const { group: all } = this.#options;
    const group = this.#groupOf(of);
    if (all === undefined || group === all) return buffer;
    const key = `${of} ${name}`;
    const known = this.#lent.get(key);
    if (known?.own === buffer.own) return known;
    const ranks = this.#ranks.get(of) ?? [];
    const { machines } = all.transport;
    const own = machines.find((members) => members.includes(all.rank)) ?? [];
    const isInPlace = ranks.every((rank) => own.includes(rank));
    const lent = group.borrow(buffer.own, isInPlace ? ranks.map((rank) => buffer.of(rank)) : []);
    this.#lent.set(key, lent);
    return lent;
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
