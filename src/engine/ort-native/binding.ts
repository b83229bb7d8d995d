/**
 * An execution that can be repeated: tensors are wrapped for ONNX Runtime once, and each execution
 * is then a single call.
 */
import { LockstepError } from "../../errors.ts";
import type { CheckedBindings } from "../bindings.ts";
import type { MemoryBuffer, MemoryTensor } from "../buffer.ts";
import type { Binding, RunCounts, RunOptions } from "../engine.ts";
import type { Handle, Status } from "./api.ts";
import type { Runtime } from "./runtime.ts";
import { asError, NativePointers, type Session, wrapTensor } from "./session.ts";

export interface BindingOwner {
  readonly runtime: Runtime;
  readonly session: Session;
  /** The graph's name, for messages. */
  readonly graphName: string;
  /** The executions that the engine waits for before it closes. */
  readonly running: Set<Promise<unknown>>;
  readonly runs: RunCounts;
  /** Called once, when the handles are released. */
  released(binding: OrtBinding): void;
}

export class OrtBinding implements Binding {
  readonly #owner: BindingOwner;
  readonly #buffers: readonly MemoryBuffer[];
  readonly #values: Handle[] = [];
  readonly #inputs: NativePointers;
  readonly #outputs: NativePointers;
  readonly #runOptions: Handle;
  #busy = false;
  #closed = false;

  constructor(owner: BindingOwner, tensors: CheckedBindings<MemoryTensor>) {
    this.#owner = owner;
    this.#buffers = [...new Set([...tensors.inputs, ...tensors.outputs].map((t) => t.buffer))];
    const { functions: f, made } = owner.runtime.api;
    this.#runOptions = made<Handle>("preparing a run", (out) => f.createRunOptions(out));
    try {
      this.#inputs = new NativePointers([
        ...tensors.inputs.map((tensor) => this.#wrap(tensor)),
        ...owner.session.lifted,
      ]);
      this.#outputs = new NativePointers(tensors.outputs.map((tensor) => this.#wrap(tensor)));
    } catch (error) {
      this.#release();
      throw error;
    }
  }

  async run(options: RunOptions = {}): Promise<void> {
    const { signal } = options;
    signal?.throwIfAborted();
    this.#begin();
    const { functions: f, check } = this.#owner.runtime.api;
    const abort = () => check(f.runOptionsSetTerminate(this.#runOptions), this.#doing);
    signal?.addEventListener("abort", abort, { once: true });
    const { promise, resolve } = settled();
    this.#owner.running.add(promise);
    try {
      const status = await new Promise<Status>((done, reject) => {
        f.run.async(...this.#arguments(), (error, result) =>
          error === null ? done(result) : reject(asError(error)),
        );
      });
      this.#checkRun(status, signal);
    } finally {
      signal?.removeEventListener("abort", abort);
      if (signal?.aborted === true) f.runOptionsUnsetTerminate(this.#runOptions);
      this.#end();
      this.#owner.running.delete(promise);
      resolve();
    }
  }

  runSync(): void {
    this.#begin();
    try {
      const { functions: f, check } = this.#owner.runtime.api;
      const status = f.run(...this.#arguments());
      if (status !== null) check(status, this.#doing);
    } finally {
      this.#end();
    }
  }

  /**
   * Releases the handles; an execution in progress keeps them until it ends. A second call does
   * nothing.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (!this.#busy) this.#release();
  }

  get #doing(): string {
    return `running graph "${this.#owner.graphName}"`;
  }

  #arguments(): [Handle, Handle, bigint, bigint, number, bigint, number, bigint] {
    const { session } = this.#owner;
    return [
      session.handle,
      this.#runOptions,
      session.inputNames.address,
      this.#inputs.address,
      session.inputNames.count,
      session.outputNames.address,
      session.outputNames.count,
      this.#outputs.address,
    ];
  }

  #checkRun(status: Status, signal: AbortSignal | undefined): void {
    if (status === null) return;
    try {
      this.#owner.runtime.api.check(status, this.#doing);
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    }
  }

  #begin(): void {
    if (this.#closed) {
      throw new LockstepError(
        "ENGINE_CLOSED",
        `The binding of graph "${this.#owner.graphName}" was closed.`,
      );
    }
    if (this.#busy) {
      throw new LockstepError(
        "INVALID_BINDING",
        `Two runs of one binding of graph "${this.#owner.graphName}" overlap.`,
        { hint: "Wait for the first, or bind a second set of tensors." },
      );
    }
    let pinned = 0;
    try {
      for (const buffer of this.#buffers) {
        buffer.pin();
        pinned += 1;
      }
    } catch (error) {
      for (const buffer of this.#buffers.slice(0, pinned)) buffer.unpin();
      throw error;
    }
    this.#busy = true;
    this.#owner.runs.begun += 1;
  }

  #end(): void {
    this.#busy = false;
    this.#owner.runs.ended += 1;
    for (const buffer of this.#buffers) buffer.unpin();
    if (this.#closed) this.#release();
  }

  #wrap(tensor: MemoryTensor): Handle {
    const value = wrapTensor(this.#owner.runtime, tensor, tensor.address, tensor.byteLength);
    this.#values.push(value);
    return value;
  }

  #release(): void {
    const { functions: f } = this.#owner.runtime.api;
    for (const value of this.#values.splice(0)) f.releaseValue(value);
    f.releaseRunOptions(this.#runOptions);
    this.#owner.released(this);
  }
}

function settled(): { promise: Promise<void>; resolve: () => void } {
  let resolve = (): void => undefined;
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}
