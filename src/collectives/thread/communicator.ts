/**
 * Collectives beside computation: a thread of its own runs transports, waits and reductions, so that neither the event loop nor
 * a long step of the engine is in their way. It maps the same memory by name; nothing is copied between the threads.
 */
import { Worker } from "node:worker_threads";
import { LockstepError } from "../../errors.ts";
import type { Memory } from "../../memory/index.ts";
import type { ListenOptions } from "../../transport/index.ts";
import type { CostModel } from "../cost.ts";
import type { PrepareOptions } from "../group.ts";
import type { Collective } from "../request.ts";
import {
  type AbortRequest,
  type Answer,
  fromPlain,
  type JoinedAnswer,
  type JoinSettings,
  type Meeting,
  type PreparedAnswer,
  type Request,
} from "./messages.ts";

type Asked<R> = R extends { readonly id: number } ? Omit<R, "id"> : never;

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

export class Communicator {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  readonly #groups = new Map<number, AbortController>();
  #lastId = 0;
  #dead: Error | undefined;

  constructor() {
    this.#worker = new Worker(new URL("./worker.js", import.meta.url));
    this.#worker.on("message", (answer: Answer) => this.#answered(answer));
    this.#worker.on("error", (error) => this.#ended(error));
    this.#worker.on("exit", () =>
      this.#ended(new LockstepError("ABORTED", "The communication thread has ended.")),
    );
  }

  /** Opens the door for groups over TCP; resolves with its address. Rejects with ADDRESS. */
  async listen(options: ListenOptions): Promise<string> {
    return (await this.#ask({ do: "listen", options })) as string;
  }

  /** Meets the other ranks, and measures what things cost with them. */
  async join(meeting: Meeting, settings: JoinSettings = {}): Promise<ThreadGroup> {
    const { rank, size } = meeting;
    const joined = (await this.#ask({ do: "join", meeting, settings })) as JoinedAnswer;
    return this.#group(joined, rank, size);
  }

  /** Ends the thread; groups that are still there are left. */
  async close(): Promise<void> {
    if (this.#dead !== undefined) return;
    await this.#ask({ do: "close" }).catch(() => undefined);
    await this.#worker.terminate();
  }

  #group({ group, costs }: JoinedAnswer, rank: number, size: number): ThreadGroup {
    const controller = new AbortController();
    this.#groups.set(group, controller);
    return new ThreadGroup({
      number: group,
      rank,
      size,
      costs,
      signal: controller.signal,
      ask: (request) => this.#ask(request),
      abort: (text) =>
        this.#worker.postMessage({ id: -1, do: "abort", group, text } satisfies AbortRequest),
      subgroup: async (ranks) => {
        const joined = (await this.#ask({ do: "subgroup", group, ranks })) as JoinedAnswer;
        return this.#group(joined, ranks.indexOf(rank), ranks.length);
      },
    });
  }

  #ask(request: Asked<Request>): Promise<unknown> {
    if (this.#dead !== undefined) return Promise.reject(this.#dead);
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ ...request, id });
    });
  }

  #answered(answer: Answer): void {
    if ("group" in answer) {
      this.#groups.get(answer.group)?.abort(fromPlain(answer.error));
      return;
    }
    const waiting = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    if ("error" in answer) waiting?.reject(fromPlain(answer.error));
    else waiting?.resolve(answer.value);
  }

  #ended(error: Error): void {
    this.#dead ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#dead);
    this.#waiting.clear();
    for (const controller of this.#groups.values()) controller.abort(this.#dead);
  }
}

interface ThreadGroupParts {
  readonly number: number;
  readonly rank: number;
  readonly size: number;
  readonly costs: CostModel;
  readonly signal: AbortSignal;
  readonly ask: (request: Asked<Request>) => Promise<unknown>;
  readonly abort: (text: string) => void;
  readonly subgroup: (ranks: readonly number[]) => Promise<ThreadGroup>;
}

/** A buffer that the communication thread has adopted. */
export interface ThreadBuffer {
  readonly number: number;
}

export interface ThreadPrepared {
  readonly algorithm: string;
  readonly estimates: Readonly<Record<string, number>>;
  /** Runs of one must not overlap, and all ranks run all in the same order. */
  run(): Promise<void>;
  close(): Promise<void>;
}

export interface ThreadRequestOptions extends Omit<PrepareOptions, "data" | "into"> {
  readonly data: ThreadBuffer;
  readonly into?: ThreadBuffer;
}

/** A group as seen from the computing thread. All ranks make the same calls in the same order. */
export class ThreadGroup {
  readonly rank: number;
  readonly size: number;
  readonly costs: CostModel;
  /** Aborted with the group's error when it has failed. */
  readonly signal: AbortSignal;
  readonly #parts: ThreadGroupParts;

  /** @internal Use `Communicator.join`. */
  constructor(parts: ThreadGroupParts) {
    this.rank = parts.rank;
    this.size = parts.size;
    this.costs = parts.costs;
    this.signal = parts.signal;
    this.#parts = parts;
  }

  /** Memory with a name, of this process: the thread maps the same pages. Its name is gone afterwards. */
  async adopt({ name }: Pick<Memory, "name">): Promise<ThreadBuffer> {
    if (name === undefined) {
      throw new LockstepError("MEMORY_NAME", "Only memory with a name reaches another thread.");
    }
    const { number: group, ask } = this.#parts;
    return { number: (await ask({ do: "adopt", group, name })) as number };
  }

  async prepare(collective: Collective, options: ThreadRequestOptions): Promise<ThreadPrepared> {
    const { number: group, ask } = this.#parts;
    const { data, into, ...rest } = options;
    const numbers = { data: data.number, ...(into === undefined ? {} : { into: into.number }) };
    const request = { do: "prepare", group, collective, options: { ...rest, ...numbers } } as const;
    const { prepared, ...found } = (await ask(request)) as PreparedAnswer;
    return {
      ...found,
      run: async () => void (await ask({ do: "run", prepared })),
      close: async () => void (await ask({ do: "release", prepared })),
    };
  }

  subgroup(ranks: readonly number[]): Promise<ThreadGroup> {
    return this.#parts.subgroup(ranks);
  }

  /** Fails the group on all ranks; a wait under way hears of it within 20 ms. */
  abort(reason: unknown): void {
    this.#parts.abort(reason instanceof Error ? reason.message : String(reason));
  }

  async close(): Promise<void> {
    await this.#parts.ask({ do: "leave", group: this.#parts.number });
  }
}
