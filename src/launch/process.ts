/**
 * A worker as a process of this machine: it is started, listened to and ended here. Its last lines
 * of output are kept.
 */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import {
  type Assignment,
  type ErrorMessage,
  errorMessage,
  type FromWorker,
  openFromWorker,
  type ToWorker,
} from "../protocol/index.ts";
import type { TrainResult } from "../run/index.ts";
import { processState } from "../transport/index.ts";
import { flipBit, type Range } from "./flip-bit.ts";
import type { Watched } from "./watch.ts";

const LAST_LINES = 12;
const LAST_BYTES = 8192;
const LOOK_MS = 1000;
/**
 * The space for new JavaScript objects has two halves of at most 4 MiB. A worker makes many objects
 * while it plans and few afterwards; with the default of Node.js (16) it would keep 24 MiB more for
 * the rest of the run. The other flag lets the space for old objects grow in small steps, so that
 * what planning leaves is collected; without it a worker keeps 20 to 30 MiB of that.
 */
export const WORKER_FLAGS = ["--max-semi-space-size=4", "--optimize-for-size"] as const;

/**
 * A worker that is found stopped by a signal this many times in a row is lost. Workers that have
 * already met it notice sooner.
 */
const STOPPED_LOOKS = 15;

/** Messages that do not concern how a run ends, which `watchWorkers` watches. */
export type OtherMessage = Exclude<FromWorker, { readonly kind: "done" | "error" | "weights" }>;

export class WorkerProcess implements Watched {
  /** Its rank, or its number among the workers of a run that come and go. */
  readonly rank: number;
  /** Resolves with the first failure; stays pending if there is none. */
  readonly failed: Promise<ErrorMessage>;
  readonly ended: Promise<void>;
  failure: ErrorMessage | undefined;
  /** How the process ended, if it ended without saying why. */
  crash: string | undefined;
  outcome: TrainResult["outcome"] | undefined;
  readonly #process: ChildProcess;
  readonly #onMessage: (message: OtherMessage) => void;
  #fail: (error: ErrorMessage) => void = () => undefined;
  /** How the process ended, once it has. */
  end: { readonly status: number | null; readonly signal: string | null } | undefined;
  #stderr = "";
  #killed = false;
  #stoppedLooks = 0;
  #weights: Range | undefined;

  constructor(rank: number, onMessage: (message: OtherMessage) => void) {
    this.rank = rank;
    this.#onMessage = onMessage;
    this.failed = new Promise((resolve) => {
      this.#fail = resolve;
    });
    const entry = fileURLToPath(new URL("worker-start.js", import.meta.url));
    this.#process = fork(entry, [], {
      stdio: ["ignore", "inherit", "pipe", "ipc"],
      serialization: "advanced",
      execArgv: [...process.execArgv, ...WORKER_FLAGS],
      env: { ...process.env, LOCKSTEP_TOKEN: undefined }, // it gets the token with its job
    });
    this.#process.stderr?.on("data", (bytes: Buffer) => {
      this.#stderr = (this.#stderr + bytes.toString()).slice(-LAST_BYTES);
    });
    this.#process.on("message", (message: unknown) => this.#take(message));
    const watch = setInterval(() => this.#look(), LOOK_MS).unref();
    this.ended = new Promise((resolve) => {
      this.#process.once("error", (error) => {
        this.end = { status: null, signal: null };
        this.#crashed(error.message);
        resolve();
      });
      // "close" comes after the streams have ended, so the last lines of output are there.
      this.#process.once("close", (status, signal) => {
        clearInterval(watch);
        this.end = { status, signal };
        this.#closed(status, signal);
        resolve();
      });
    });
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  start(job: Assignment): void {
    this.tell({ kind: "job", job });
  }

  /**
   * Asks the worker to stop. With `alone`, a worker that was stopped by a signal is continued so
   * that it can save; otherwise it would be killed.
   */
  stop(alone = false): void {
    this.tell({ kind: "stop", alone });
    if (alone && this.isStopped) this.#process.kill("SIGCONT");
  }

  tell(message: ToWorker): void {
    if (this.#process.connected) this.#process.send(message, () => undefined);
  }

  /** Returns false if the process has ended. */
  signal(name: NodeJS.Signals): boolean {
    const { exitCode, signalCode } = this.#process;
    return exitCode === null && signalCode === null && this.#process.kill(name);
  }

  /** Returns false if the process has ended, or has no weights yet. */
  flipBit(which: number): boolean {
    const { pid, exitCode, signalCode } = this.#process;
    if (pid === undefined || exitCode !== null || signalCode !== null) return false;
    return this.#weights !== undefined && flipBit(pid, this.#weights, which);
  }

  kill(): void {
    this.#killed = true;
    if (this.#process.exitCode === null) this.#process.kill("SIGKILL");
  }

  #take(value: unknown): void {
    if (this.failure !== undefined) return;
    let message: FromWorker;
    try {
      message = openFromWorker(value, `Worker ${this.rank}`);
    } catch (error) {
      return this.#failWith(errorMessage(error));
    }
    this.#hear(message);
  }

  #hear(message: FromWorker): void {
    switch (message.kind) {
      case "done":
        this.outcome = message.outcome;
        break;
      case "error":
        this.#failWith(message.error);
        break;
      case "weights":
        this.#weights = message;
        break;
      default:
        this.#onMessage(message);
    }
  }

  /** Whether the process is stopped by a signal. */
  get isStopped(): boolean {
    const { pid, exitCode } = this.#process;
    return pid !== undefined && exitCode === null && processState(pid) === "T";
  }

  #look(): void {
    this.#stoppedLooks = this.isStopped ? this.#stoppedLooks + 1 : 0;
    if (this.#stoppedLooks < STOPPED_LOOKS || this.failure !== undefined) return;
    this.crash = "stopped";
    const what = `is stopped, for ${STOPPED_LOOKS} s`;
    const text = `Worker ${this.rank} (process ${this.#process.pid}) ${what}.`;
    this.#failWith({ code: "PEER_LOST", text, fields: { peer: this.rank } });
  }

  #closed(status: number | null, signal: NodeJS.Signals | null): void {
    if (this.#killed || this.outcome !== undefined || this.failure !== undefined) return;
    this.#crashed(signal === null ? `with status ${status}` : `by ${signal}`);
  }

  /** The last lines of its output for errors. */
  get lastWords(): string {
    return this.#stderr.trimEnd().split("\n").slice(-LAST_LINES).join("\n    ");
  }

  #crashed(how: string): void {
    this.crash = how;
    const words = this.lastWords;
    const last = words === "" ? "It said nothing." : `Its last words:\n    ${words}`;
    const text = `Worker ${this.rank} (process ${this.#process.pid}) ended ${how}.\n  ${last}`;
    this.#failWith({ code: "PEER_LOST", text, fields: { peer: this.rank } });
  }

  #failWith(error: ErrorMessage): void {
    if (this.failure !== undefined) return;
    this.failure = error;
    this.#fail(error);
  }
}
