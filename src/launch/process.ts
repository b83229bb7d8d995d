/**
 * A worker as a process of this machine: it is started, listened to and ended here, for a launcher
 * or for an agent. Its last lines of output are kept.
 */
import { type ChildProcess, fork } from "node:child_process";
import { workerEntry } from "../package.ts";
import { errorMessage, type FromWorker, openFromWorker, type ToWorker } from "../protocol/index.ts";
import { processState } from "../transport/index.ts";
import { flipBit, type Range } from "./flip-bit.ts";
import type { Body, WorkerEnd } from "./handle.ts";
import { WORKER_FLAGS } from "./v8-flags.ts";

const LAST_LINES = 12;
const LAST_BYTES = 8192;
export interface ProcessEvents {
  readonly said: (message: FromWorker) => void;
  readonly ended: (end: WorkerEnd) => void;
}

export class WorkerProcess implements Body {
  readonly #number: number;
  readonly #process: ChildProcess;
  readonly #events: ProcessEvents;
  #stderr = "";
  #isFaulty = false;
  #weights: Range | undefined;

  /** Starts a worker. Where the system refuses that, as without memory, it has ended at once. */
  static start(number: number, events: ProcessEvents): WorkerProcess | undefined {
    try {
      return new WorkerProcess(number, events);
    } catch (error) {
      const words = error instanceof Error ? error.message : String(error);
      queueMicrotask(() => events.ended({ status: null, signal: null, words }));
      return undefined;
    }
  }

  private constructor(number: number, events: ProcessEvents) {
    this.#number = number;
    this.#events = events;
    this.#process = fork(workerEntry(), [], {
      stdio: ["ignore", "inherit", "pipe", "ipc"],
      serialization: "advanced",
      execArgv: [...process.execArgv, ...WORKER_FLAGS],
      env: { ...process.env, LOCKSTEP_TOKEN: undefined }, // it gets the token with its job
    });
    this.#process.stderr?.on("data", (bytes: Buffer) => {
      this.#stderr = (this.#stderr + bytes.toString()).slice(-LAST_BYTES);
    });
    this.#process.on("message", (message: unknown) => this.#take(message));
    let isOver = false;
    const over = (status: number | null, signal: NodeJS.Signals | null, words: string) => {
      if (isOver) return;
      isOver = true;
      events.ended({ pid: this.pid, status, signal, words });
    };
    this.#process.once("error", (error) => over(null, null, error.message));
    // "close" comes after the streams have ended, so the last lines of output are there.
    this.#process.once("close", (status, signal) => over(status, signal, this.#lastWords));
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  /** A worker that is stopped by a signal is continued to stop alone, so that it can save. */
  tell(message: ToWorker): void {
    if (this.#process.connected) this.#process.send(message, () => undefined);
    if (message.kind === "stop" && message.alone === true && this.isStopped) {
      this.#process.kill("SIGCONT");
    }
  }

  signal(name: NodeJS.Signals): boolean {
    const { exitCode, signalCode } = this.#process;
    return exitCode === null && signalCode === null && this.#process.kill(name);
  }

  flipBit(which: number): boolean {
    const { pid, exitCode, signalCode } = this.#process;
    if (pid === undefined || exitCode !== null || signalCode !== null) return false;
    return this.#weights !== undefined && flipBit(pid, this.#weights, which);
  }

  /** Whether the process is stopped by a signal. */
  get isStopped(): boolean {
    const { pid, exitCode } = this.#process;
    return pid !== undefined && exitCode === null && processState(pid) === "T";
  }

  /** Of a worker that sends what no worker sends, nothing more is taken. */
  #take(value: unknown): void {
    if (this.#isFaulty) return;
    let message: FromWorker;
    try {
      message = openFromWorker(value, `Worker ${this.#number}`);
    } catch (error) {
      this.#isFaulty = true;
      message = { kind: "error", error: errorMessage(error) };
    }
    if (message.kind === "weights") this.#weights = message;
    else this.#events.said(message);
  }

  get #lastWords(): string {
    return this.#stderr.trimEnd().split("\n").slice(-LAST_LINES).join("\n    ");
  }
}
