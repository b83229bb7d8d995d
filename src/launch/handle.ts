/** A worker as the leader of its run sees it, wherever its process is. */
import { LockstepError } from "../errors.ts";
import type { LinkFault } from "../net/index.ts";
import type { ErrorMessage, FromWorker, ToWorker } from "../protocol/index.ts";
import type { DiskFault, TrainResult } from "../run/index.ts";

/** What does what a worker's handle is asked for: a process of this machine, or an agent. */
export interface Body {
  tell(message: ToWorker): void;
  /** Returns false if the process has ended. */
  signal(name: NodeJS.Signals): boolean;
  /** Flips a bit of the worker's weights; only for a process of this machine. */
  flipBit?(which: number): boolean;
  /** Cuts its machine off from all others; only for a worker of an agent. */
  cutOff?(ms: number): void;
}

/** How the process of a worker ended. */
export interface WorkerEnd {
  readonly pid?: number | undefined;
  readonly status: number | null;
  readonly signal: string | null;
  /** The last lines of its output. */
  readonly words: string;
  /**
   * Why nothing that the worker says is taken any more: it cannot be reached, and its process may
   * live. Undefined if it is dead.
   */
  readonly refused?: string;
}

/** Messages that do not concern how the worker ends. */
export type OtherMessage = Exclude<FromWorker, { readonly kind: "done" | "error" | "weights" }>;

export class WorkerHandle {
  /** Its number in the run. */
  readonly number: number;
  /** Resolves with the first failure; stays pending if there is none. */
  readonly failed: Promise<ErrorMessage>;
  readonly ended: Promise<WorkerEnd>;
  failure: ErrorMessage | undefined;
  /** How the process ended, if it ended without saying why. */
  crash: string | undefined;
  outcome: TrainResult["outcome"] | undefined;
  /** Where it listens for workers of other machines. */
  address: string | undefined;
  readonly #onMessage: (message: OtherMessage) => void;
  #body: Body | undefined;
  #isKilled = false;
  #isOver = false;
  #fail: (error: ErrorMessage) => void = () => undefined;
  #end: (end: WorkerEnd) => void = () => undefined;

  constructor(number: number, onMessage: (message: OtherMessage) => void) {
    this.number = number;
    this.#onMessage = onMessage;
    this.failed = new Promise((resolve) => {
      this.#fail = resolve;
    });
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  set body(body: Body) {
    this.#body = body;
  }

  tell(message: ToWorker): void {
    if (!this.#isOver) this.#body?.tell(message);
  }

  /** `alone`: another worker has ended the run. */
  stop(alone = false): void {
    this.tell({ kind: "stop", alone });
  }

  signal(name: NodeJS.Signals): boolean {
    return !this.#isOver && (this.#body?.signal(name) ?? false);
  }

  flipBit(which: number): boolean {
    return !this.#isOver && (this.#body?.flipBit?.(which) ?? false);
  }

  failDisk(fault: DiskFault): boolean {
    this.tell({ kind: "disk-fault", fault });
    return !this.#isOver;
  }

  failLinks(fault: LinkFault, ms: number): boolean {
    if (fault === "slow-link") this.tell({ kind: "link-fault", fault, ms });
    else if (this.#body?.cutOff === undefined) return false;
    else this.#body.cutOff(ms);
    return !this.#isOver;
  }

  kill(): void {
    this.#isKilled = true;
    this.signal("SIGKILL");
  }

  /** The worker has said this. */
  hear(message: FromWorker): void {
    if (this.failure !== undefined || this.#isOver) return;
    switch (message.kind) {
      case "done":
        this.outcome = message.outcome;
        break;
      case "error":
        this.#failWith(message.error);
        break;
      case "weights":
        break; // its process keeps that
      default:
        this.#onMessage(message);
    }
  }

  /** Its process has ended, or nothing that it says will be taken. */
  close(end: WorkerEnd): void {
    if (this.#isOver) return;
    const isClear = this.outcome !== undefined || this.failure !== undefined;
    if (!this.#isKilled && !isClear && end.refused === undefined) this.#crashed(end);
    this.#isOver = true;
    this.#end(end);
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  #crashed({ pid, status, signal, words }: WorkerEnd): void {
    const how = signal === null ? `with status ${status ?? "unknown"}` : `by ${signal}`;
    this.crash = how;
    const last = words === "" ? "It said nothing." : `Its last words:\n    ${words}`;
    const text = `Worker ${this.number} (process ${pid}) ended ${how}.\n  ${last}`;
    this.#failWith({ code: "PEER_LOST", text, fields: { peer: this.number } });
  }

  #failWith(error: ErrorMessage): void {
    this.failure = error;
    this.#fail(error);
  }

  /** The error that the worker has ended with, as the launcher throws it. */
  get error(): Error {
    const { failure, number } = this;
    if (failure === undefined) return new Error("no worker failed");
    const fields = { ...failure.fields, worker: number };
    if (failure.code !== undefined)
      return new LockstepError(failure.code, failure.text, { fields });
    const error = new Error(failure.text.split("\n")[0]);
    error.stack = failure.text;
    return error;
  }
}
