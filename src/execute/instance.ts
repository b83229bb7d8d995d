/**
 * A program with memory and a device: the only place where the stages of a program run. An instance
 * owns its memory for its whole life, while a group lives for one generation. `attach` lets the
 * collectives of a program work on that memory with the ranks of a group, `detach` takes the memory
 * back, and its contents (weights, slots) stay for the next group.
 */

import type { Group, Prepared } from "../collectives/index.ts";
import type {
  Binding,
  Device,
  DeviceTensor,
  Executable,
  HostBuffer,
  HostTensor,
} from "../engine/index.ts";
import { assert } from "../errors.ts";
import {
  type BufferPlace,
  COMPUTE,
  type CollectiveStage,
  overwritten,
  type Program,
  type Run,
  type RunStage,
  type Stage,
  type Task,
  type TaskStage,
  type TensorRef,
} from "../program/index.ts";
import { tensorFrom, toNumbers } from "../tensor/index.ts";
import { compileAll } from "./compile.ts";
import { executeTasks } from "./execute.ts";
import { InstanceMemory } from "./instance-memory.ts";
import { type Journal, runLogged } from "./journal.ts";
import { Messages } from "./messages.ts";
import { runBindings } from "./run-bindings.ts";
import { checkSharedRoom } from "./shared-room.ts";

export interface StageOptions {
  readonly signal?: AbortSignal | undefined;
  /** Wraps each task that computes, so that the time a rank computes alone can be measured. */
  readonly around?: (body: () => Promise<void>) => Promise<void>;
  /** Where logged runs are written down. Runs that it has as done are left out. */
  readonly journal?: Journal | undefined;
}

export class Instance {
  readonly device: Device;
  /** The group of all ranks. */
  #all: Group | undefined;
  /** The groups of the program, by name. */
  readonly #groups = new Map<string, Group>();
  readonly #memory: InstanceMemory;
  readonly #executables = new Map<string, Executable>();
  readonly #tensors = new Map<string, DeviceTensor>();
  readonly #bindings = new Map<RunStage, readonly Binding[]>();
  readonly #overwritten = new Map<RunStage, readonly (readonly HostTensor[])[]>();
  readonly #prepared = new Map<CollectiveStage, Prepared>();
  readonly #messages = new Messages();

  /** @internal Use `instantiate`. */
  constructor(device: Device, folder: string | undefined) {
    this.device = device;
    this.#memory = new InstanceMemory(device, folder);
  }

  /**
   * Continues with the ranks of this group, or alone. All ranks attach together, each with its
   * program. The group must stay open until the instance is detached. Memory keeps its contents as
   * in `load`. After a failure the instance is detached.
   */
  async attach(program: Program, all?: Group): Promise<void> {
    assert(this.#all === undefined, "an instance is detached before it is attached to others");
    this.#all = all;
    try {
      if (all !== undefined) await checkSharedRoom(all, this.#memory.unshared(program, all));
      await this.load(program);
    } catch (error) {
      this.detach();
      throw error;
    }
  }

  /**
   * Leaves the groups, also failed ones, between two steps. All memory keeps its contents;
   * collectives need a new `attach` first.
   */
  detach(): void {
    this.#forgetBindings();
    this.#messages.leave(this.#all);
    if (this.#all !== undefined) this.#memory.release(this.#all);
    this.#all = undefined;
    this.#groups.clear();
  }

  /**
   * Makes room for a program and compiles its new graphs. All attached ranks call this between the
   * same two steps. A buffer keeps its contents by name, but is filled with zeros if it has to
   * grow.
   */
  async load(program: Program): Promise<void> {
    this.#forgetBindings();
    await this.#openGroups(program);
    for (const [name, spec] of program.buffers) {
      if (program.shared.has(name)) await this.#memory.share(name, spec, this.#others());
      else await this.#memory.allocate(name, spec);
    }
    await this.#compile(program);
  }

  /**
   * Graphs that were compiled before stay open until all new ones are compiled, because a device
   * compiles equal graphs once.
   */
  async #compile({ graphs }: Program): Promise<void> {
    const compiled = await compileAll(this.device, graphs);
    for (const executable of this.#executables.values()) executable.close();
    this.#executables.clear();
    for (const [name, executable] of compiled) this.#executables.set(name, executable);
  }

  tensor(ref: TensorRef): DeviceTensor {
    const { buffer, rank, byteOffset, type } = ref;
    const key = `${buffer}:${rank ?? ""}:${byteOffset}:${type.dtype}:${type.shape.join("x")}`;
    let tensor = this.#tensors.get(key);
    if (tensor === undefined) {
      tensor = this.#memory.buffer(buffer, rank).tensor(type, byteOffset);
      this.#tensors.set(key, tensor);
    }
    return tensor;
  }

  /** Returns a tensor in a buffer that the program has in host memory. */
  hostTensor(ref: TensorRef): HostTensor {
    const tensor = this.tensor(ref);
    assert(isHostTensor(tensor), `the program has the buffer "${ref.buffer}" in host memory`);
    return tensor;
  }

  /** Writes values into a tensor in host or device memory. */
  write(ref: TensorRef, values: readonly number[]): void {
    const { dtype, shape } = ref.type;
    this.device.upload(this.tensor(ref), tensorFrom(dtype, shape, values).bytes);
  }

  /** Returns the values of a tensor in host or device memory. */
  async read(ref: TensorRef): Promise<number[]> {
    return toNumbers(await this.device.download(this.tensor(ref)));
  }

  /**
   * Returns a buffer that the program has in host memory: this rank's, or that of another rank of
   * its node.
   */
  host(name: string, rank?: number): HostBuffer {
    return this.#memory.host(name, rank);
  }

  /** Runs a stage to its end. After a failure no call of the stage is still running. */
  async run(stage: Stage, options: StageOptions = {}): Promise<void> {
    if (stage.mode === "collective") return this.#collective(stage);
    if (stage.mode === "tasks") return this.#tasks(stage, options);
    if (stage.mode === "signal") return this.#others().signal(stage.tells, stage.awaits);
    if (stage.mode === "messages") {
      return this.#messages.run(stage, this.#others(), (part) => this.#memory.bytes(part));
    }
    const { signal, journal } = options;
    if (stage.isLogged === true && journal !== undefined) return this.#logged(stage, journal);
    const { threads } = this.device;
    await runBindings([...this.#bind(stage).entries()], { mode: stage.mode, threads, signal });
  }

  /** Uses buffers of another instance too, before it is attached. @internal */
  adopt(
    other: Instance,
    names: readonly string[],
    { program, group }: { readonly program: Program; readonly group: Group | undefined },
  ): void {
    for (const name of names) {
      const spec = program.buffers.get(name);
      const all = program.shared.has(name) ? group : undefined;
      if (spec !== undefined) this.#memory.adopt(other.#memory, name, spec, all);
    }
  }

  /** Gives back memory that only the instance before has used. After that nobody may go back to it. */
  trim(): void {
    this.#memory.trim();
  }

  /** Compiles the graphs of another rank's program that this rank's program does not have. */
  async addGraphs({ graphs }: Pick<Program, "graphs">): Promise<void> {
    const missing = [...graphs].filter(([name]) => !this.#executables.has(name));
    for (const [name, executable] of await compileAll(this.device, missing)) {
      this.#executables.set(name, executable);
    }
  }

  /** Closes the graphs and the memory, but no group. */
  close(): void {
    this.detach();
    for (const executable of this.#executables.values()) executable.close();
    this.#executables.clear();
    this.#memory.close();
  }

  /**
   * A failure ends the whole group, because a task that waits for a peer would use memory that may
   * be freed by then.
   */
  async #tasks({ tasks }: TaskStage, options: StageOptions): Promise<void> {
    const { signal, around = (body) => body() } = options;
    const run = async ({ lane, work }: Task, ended: AbortSignal) => {
      const body = async () => {
        for (const stage of work) await this.run(stage, options);
      };
      const abort = () => this.#all?.transport.abort(ended.reason);
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
      this.#all?.transport.abort(error);
      throw error;
    }
  }

  /** Opens the groups of ranks that are new in a program. All ranks open them in the same order. */
  async #openGroups({ groups }: Program): Promise<void> {
    for (const [name, ranks] of groups) {
      const all = this.#others();
      if (this.#groups.has(name)) continue;
      this.#groups.set(name, ranks.length === all.size ? all : await all.subgroup(ranks));
      this.#memory.addGroup(name, ranks);
    }
  }

  /** Returns the group of all ranks. */
  #others(): Group {
    assert(this.#all !== undefined, "a program with other ranks is attached to them");
    return this.#all;
  }

  #forgetBindings(): void {
    for (const bindings of this.#bindings.values()) {
      for (const binding of bindings) binding.close();
    }
    this.#bindings.clear();
    this.#overwritten.clear();
    this.#prepared.clear();
    this.#tensors.clear();
  }

  /** Prepares a collective when it first runs; all ranks reach it in the same order. */
  async #collective(stage: CollectiveStage): Promise<void> {
    const { group: name, call, data, into } = stage;
    const group = this.#groups.get(name);
    assert(group !== undefined, `the program has a group "${name}"`);
    if (call.kind === "barrier") return group.barrier();
    let prepared = this.#prepared.get(stage);
    if (prepared === undefined) {
      assert(data !== undefined, `"${stage.name}" says where its data lie`);
      const all = this.#others();
      const seenBy = ({ buffer }: BufferPlace) =>
        group === all ? this.#memory.shared(buffer) : this.#memory.lent(buffer, name, all, group);
      const target = into && { into: seenBy(into), intoByteOffset: into.byteOffset };
      const source = { data: seenBy(data), byteOffset: data.byteOffset };
      prepared = group.prepare(call, { ...source, ...target });
      this.#prepared.set(stage, prepared);
    }
    try {
      await prepared.run();
    } catch (error) {
      // Where some of the ranks have failed, all have: those of other groups wait for these later.
      this.#all?.transport.abort(error);
      throw error;
    }
  }

  /** Runs what the journal does not have as done. What was interrupted is undone first. */
  async #logged(stage: RunStage, journal: Journal): Promise<void> {
    const bindings = this.#bind(stage);
    let places = this.#overwritten.get(stage);
    if (places === undefined) {
      places = stage.runs.map((run) => overwritten(run).map((ref) => this.hostTensor(ref)));
      this.#overwritten.set(stage, places);
    }
    await runLogged(bindings, places, journal, { mode: stage.mode, threads: this.device.threads });
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

  #tensorsOf(refs: Readonly<Record<string, TensorRef>>): Record<string, DeviceTensor> {
    return Object.fromEntries(Object.entries(refs).map(([name, ref]) => [name, this.tensor(ref)]));
  }
}

function isHostTensor(tensor: DeviceTensor): tensor is HostTensor {
  return tensor.buffer.space === "host";
}
