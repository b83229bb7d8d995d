/** A program with memory and an engine: the only place where its stages run. */

import type { Group, GroupBuffer, Prepared } from "../collectives/index.ts";
import type { Binding, Engine, EngineBuffer, EngineTensor, Executable } from "../engine/index.ts";
import { assert } from "../errors.ts";
import { executeTasks } from "./execute.ts";
import { inLanes } from "./lanes.ts";
import type { Task } from "./partition.ts";
import type {
  Axis,
  BufferPlace,
  CollectiveStage,
  Program,
  Run,
  RunStage,
  Stage,
  TaskStage,
  TensorRef,
} from "./program.ts";

export interface InstanceOptions {
  /** Buffers get names that other processes can map: `PREFIX-BUFFER`. Without it they are private. */
  readonly shareAs?: string | undefined;
  /** The other ranks, for programs with collectives. They are closed after the instance. */
  readonly groups?: Groups | undefined;
}

/** The groups of each axis that a program has. That of all ranks owns the shared buffers. */
export type Groups = { readonly all: Group } & Partial<Readonly<Record<Axis, Group>>>;

/** Collectives have deadlines of their own; this one ends what they would miss. */
const DEADLINE_MS = 3_600_000;

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
  /** The same memory for the groups of other axes: by axis and name. */
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
  async #tasks({ tasks, work }: TaskStage, options: StageOptions): Promise<void> {
    const { signal, around = (body) => body() } = options;
    const begun: Promise<void>[] = [];
    const begin = (task: Task) => {
      const all = (async () => {
        for (const stage of work.get(task) ?? []) await this.run(stage, options);
      })();
      begun.push(all);
      return all;
    };
    const executor = {
      segment: (task: Task) => around(() => begin(task)),
      collective: begin,
    };
    const limits = { deadlineMs: DEADLINE_MS, ...(signal === undefined ? {} : { signal }) };
    try {
      await executeTasks(tasks, executor, limits);
    } catch (error) {
      this.#options.groups?.all.transport.abort(error);
      await Promise.allSettled(begun);
      throw error;
    }
  }

  async #share(name: string, byteLength: number): Promise<void> {
    const group = this.#groupOf("all");
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
    const { axis, call, data, into } = stage;
    const group = this.#groupOf(axis);
    if (call.kind === "barrier") return group.barrier();
    let prepared = this.#prepared.get(stage);
    if (prepared === undefined) {
      assert(data !== undefined, `"${stage.name}" says where its data lie`);
      const target = into && { into: this.#place(axis, into), intoByteOffset: into.byteOffset };
      const source = { data: this.#place(axis, data), byteOffset: data.byteOffset };
      prepared = await group.prepare(call, { ...source, ...target });
      this.#prepared.set(stage, prepared);
    }
    await prepared.run();
  }

  #groupOf(axis: Axis): Group {
    const group = this.#options.groups?.[axis];
    assert(group !== undefined, `a program with collectives over "${axis}" has a group for it`);
    return group;
  }

  /** The buffer as the group of an axis sees it. */
  #place(axis: Axis, { buffer: name }: BufferPlace): GroupBuffer {
    const buffer = this.#shared.get(name);
    assert(buffer !== undefined, `"${name}" is a shared buffer`);
    if (axis === "all") return buffer;
    const key = `${axis} ${name}`;
    const known = this.#lent.get(key);
    if (known?.own === buffer.own) return known;
    const { machines } = this.#groupOf("all").transport;
    const machine = machines.find((ranks) => ranks.includes(this.#groupOf("all").rank)) ?? [];
    const peers = axis === "machine" ? machine.map((rank) => buffer.of(rank)) : [];
    const lent = this.#groupOf(axis).borrow(buffer.own, peers);
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
