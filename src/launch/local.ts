/**
 * Starts the workers of a run as processes of this machine, and watches them. One that fails takes no other down: the
 * rest is ended in good order, and the error says what was its last word.
 */
import { type ChildProcess, fork } from "node:child_process";
import { randomBytes } from "node:crypto";
import { fileURLToPath } from "node:url";
import { LockstepError } from "../errors.ts";
import type { EventSink } from "../telemetry/index.ts";
import type { TrainResult } from "../train/index.ts";
import { type ErrorMessage, type FromWorker, isConsequence, type Job } from "./messages.ts";

export interface LaunchOptions extends Omit<Job, "rank" | "group"> {
  readonly onEvent: EventSink;
  /** Asks for a clean stop. */
  readonly signal: AbortSignal;
}

/** How long the leader may take to save what it has when another worker has failed. */
const SAVE_MS = 10_000;
/** How long the cause of a failure may take to be seen after its consequences. */
const CAUSE_MS = 500;
const LAST_LINES = 12;
const LAST_BYTES = 8192;

/** Resolves when all workers have ended well. @throws PEER_LOST for one that crashed, or what a worker threw */
export async function launchLocal(options: LaunchOptions): Promise<TrainResult["outcome"]> {
  const { onEvent, signal, workers, ...shared } = options;
  const group = `lockstep-${process.pid}-${randomBytes(6).toString("hex")}`;
  const all = Array.from({ length: workers }, (_, rank) => new Worker(rank, onEvent));
  const stop = () => {
    for (const worker of all) worker.stop();
  };
  signal.addEventListener("abort", stop, { once: true });
  try {
    for (const worker of all) worker.start({ ...shared, workers, group, rank: worker.rank });
    await firstFailureOrEnd(all);
    const failed = all.filter(({ failure }) => failure !== undefined);
    if (failed.length === 0) return all[0]?.outcome ?? "stopped";
    await settle(all);
    throw errorOf(all);
  } finally {
    signal.removeEventListener("abort", stop);
    for (const worker of all) worker.kill();
    await Promise.all(all.map(({ ended }) => ended));
  }
}

async function firstFailureOrEnd(all: readonly Worker[]): Promise<void> {
  const failures = all.map(({ ended, failed }) =>
    Promise.race([failed, ended.then(() => "ended")]),
  );
  const ends = Promise.all(all.map(({ ended }) => ended));
  await Promise.race([
    ends,
    ...failures.map((first) => first.then((what) => (what === "ended" ? ends : undefined))),
  ]);
}

/** Waits for the cause of a failure, and for the leader to save its last good weights. */
async function settle(all: readonly Worker[]): Promise<void> {
  const cause = Promise.race(
    all.map(async (worker) => {
      const error = await worker.failed;
      if (worker.crash === undefined && isConsequence(error)) await never();
    }),
  );
  await atMost(CAUSE_MS, cause);
  await atMost(SAVE_MS, all[0]?.ended ?? Promise.resolve());
}

function never(): Promise<void> {
  return new Promise(() => undefined);
}

async function atMost(milliseconds: number, what: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, milliseconds);
  });
  await Promise.race([what, late]);
  clearTimeout(timer);
}

/** A crash counts first, then an error with a cause of its own, then the consequences. */
function errorOf(all: readonly Worker[]): Error {
  const failed = all.filter(({ failure }) => failure !== undefined);
  const first =
    failed.find(({ crash }) => crash !== undefined) ??
    failed.find(({ failure }) => failure !== undefined && !isConsequence(failure)) ??
    failed[0];
  const failure = first?.failure;
  if (first === undefined || failure === undefined) return new Error("no worker failed");
  const fields = { ...failure.fields, worker: first.rank };
  if (failure.code !== undefined) return new LockstepError(failure.code, failure.text, { fields });
  const error = new Error(failure.text.split("\n")[0]);
  error.stack = failure.text;
  return error;
}

class Worker {
  readonly rank: number;
  /** Resolves with the first failure; never without one. */
  readonly failed: Promise<ErrorMessage>;
  readonly ended: Promise<void>;
  failure: ErrorMessage | undefined;
  /** How the process ended without a word. */
  crash: string | undefined;
  outcome: TrainResult["outcome"] | undefined;
  readonly #process: ChildProcess;
  readonly #onEvent: EventSink;
  #fail: (error: ErrorMessage) => void = () => undefined;
  #stderr = "";
  #killed = false;

  constructor(rank: number, onEvent: EventSink) {
    this.rank = rank;
    this.#onEvent = onEvent;
    this.failed = new Promise((resolve) => {
      this.#fail = resolve;
    });
    const entry = fileURLToPath(new URL("worker.js", import.meta.url));
    this.#process = fork(entry, [], {
      stdio: ["ignore", "inherit", "pipe", "ipc"],
      serialization: "advanced",
    });
    this.#process.stderr?.on("data", (bytes: Buffer) => {
      this.#stderr = (this.#stderr + bytes.toString()).slice(-LAST_BYTES);
    });
    this.#process.on("message", (message: FromWorker) => this.#hear(message));
    this.ended = new Promise((resolve) => {
      this.#process.once("error", (error) => {
        this.#crashed(error.message);
        resolve();
      });
      // After the streams: the last words are in by then.
      this.#process.once("close", (status, signal) => {
        this.#closed(status, signal);
        resolve();
      });
    });
  }

  start(job: Job): void {
    this.#process.send({ kind: "job", job }, () => undefined);
  }

  stop(): void {
    if (this.#process.connected) this.#process.send({ kind: "stop" }, () => undefined);
  }

  kill(): void {
    this.#killed = true;
    if (this.#process.exitCode === null) this.#process.kill("SIGKILL");
  }

  #hear(message: FromWorker): void {
    switch (message.kind) {
      case "event":
        if (this.rank === 0) this.#onEvent(message.event);
        break;
      case "done":
        this.outcome = message.outcome;
        break;
      case "error":
        this.#failWith(message.error);
        break;
    }
  }

  #closed(status: number | null, signal: NodeJS.Signals | null): void {
    if (this.#killed || this.outcome !== undefined || this.failure !== undefined) return;
    this.#crashed(signal === null ? `with status ${status}` : `by ${signal}`);
  }

  #crashed(how: string): void {
    this.crash = how;
    const words = this.#stderr.trimEnd().split("\n").slice(-LAST_LINES).join("\n    ");
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
