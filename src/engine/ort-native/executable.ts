/** A compiled graph with its own names of inputs and outputs. */
import { LockstepError } from "../../errors.ts";
import type { Graph, OperatorTable } from "../../graph/index.ts";
import { mayAlias } from "../alias.ts";
import { checkBindings } from "../bindings.ts";
import type { MemoryTensor } from "../buffer.ts";
import type { Binding, Bindings, DeviceTensor, Executable, RunCounts } from "../engine.ts";
import { OrtBinding } from "./binding.ts";
import type { SessionShare } from "./cache.ts";
import type { Runtime } from "./runtime.ts";
import type { Session } from "./session.ts";

export interface ExecutableOwner {
  /** Whether the executable's device has made the tensor; others are refused. */
  isOwn(tensor: DeviceTensor): tensor is MemoryTensor;
  readonly runtime: Runtime;
  readonly operators: OperatorTable;
  readonly running: Set<Promise<unknown>>;
  readonly runs: RunCounts;
  closed(executable: OrtExecutable): void;
}

export class OrtExecutable implements Executable {
  readonly graph: Graph;
  readonly #owner: ExecutableOwner;
  readonly #share: SessionShare;
  readonly #bindings = new Set<OrtBinding>();
  readonly #aliases = new Map<string, boolean>();
  #closed = false;

  constructor(graph: Graph, share: SessionShare, owner: ExecutableOwner) {
    this.graph = graph;
    this.#share = share;
    this.#owner = owner;
  }

  get session(): Session {
    return this.#share.session;
  }

  bind(tensors: Bindings): Binding {
    if (this.#closed) {
      throw new LockstepError("ENGINE_CLOSED", `Graph "${this.graph.name}" was closed.`);
    }
    const checked = checkBindings(this.graph, tensors, {
      isOwn: (tensor): tensor is MemoryTensor => this.#owner.isOwn(tensor),
      mayAlias: (output, input) => this.mayAlias(output, input),
    });
    this.#share.retain();
    try {
      const binding = new OrtBinding(
        {
          runtime: this.#owner.runtime,
          session: this.#share.session,
          graphName: this.graph.name,
          running: this.#owner.running,
          runs: this.#owner.runs,
          released: (released) => {
            if (this.#bindings.delete(released)) this.#share.release();
          },
        },
        checked,
      );
      this.#bindings.add(binding);
      return binding;
    } catch (error) {
      this.#share.release();
      throw error;
    }
  }

  mayAlias(output: string, input: string): boolean {
    const key = JSON.stringify([output, input]);
    let answer = this.#aliases.get(key);
    if (answer === undefined) {
      answer = mayAlias(this.graph, this.#owner.operators, output, input);
      this.#aliases.set(key, answer);
    }
    return answer;
  }

  /**
   * Closes its bindings too, after executions in progress have ended. A second call does nothing.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#owner.closed(this);
    for (const binding of this.#bindings) binding.close();
    this.#share.release();
  }
}
