/** An agent as the launcher sees it, and the agent's workers. */
import { LockstepError } from "../errors.ts";
import type { JobFiles } from "../job/index.ts";
import type { Line } from "../net/index.ts";
import {
  type AgentJob,
  type AgentReply,
  type AgentRequest,
  type ErrorMessage,
  envelope,
  errorMessage,
  openReply,
  PIECE_BYTES,
} from "../protocol/index.ts";
import type { TrainResult } from "../run/index.ts";
import type { RunEvent } from "../telemetry/index.ts";
import type { OwnClock } from "./own-clock.ts";
import type { Watched } from "./watch.ts";

export interface RemoteOptions {
  /** The agent's host:port, as the user wrote it. */
  readonly host: string;
  readonly line: Line;
  readonly firstRank: number;
  readonly workers: number;
  readonly clock: Pick<OwnClock, "stoodStillMs">;
  readonly hostOf: (rank: number) => string | undefined;
  readonly onEvent: (event: RunEvent) => void;
  readonly onListening: (rank: number, port: number) => void;
}

export class RemoteAgent {
  readonly host: string;
  readonly workers: readonly RemoteWorker[];
  /**
   * Resolves when the agent has taken the job. Rejects with the agent's reason for refusing it, or
   * with PEER_LOST.
   */
  readonly accepted: Promise<void>;
  readonly #options: RemoteOptions;
  readonly #listening = new Set<number>();
  /** When a part of the job was last sent, in milliseconds of `performance.now()`. */
  sentAt = performance.now();
  #pieces: Iterator<string> | undefined;
  #hasAnswered = false;
  #answer: (error?: Error) => void = () => undefined;

  constructor(options: RemoteOptions) {
    this.#options = options;
    this.host = options.host;
    this.workers = Array.from(
      { length: options.workers },
      (_, index) => new RemoteWorker(options.firstRank + index, this),
    );
    this.accepted = new Promise((resolve, reject) => {
      this.#answer = (error) => (error === undefined ? resolve() : reject(error));
    });
    this.accepted.catch(() => undefined);
    options.line.handler = {
      message: (value) => this.#take(value),
      closed: (why) => this.#lost(why),
    };
  }

  send(request: AgentRequest): void {
    this.#options.line.send(envelope(request));
  }

  /** Sends the job and then its files, as fast as the agent takes them. */
  offer(job: AgentJob, files: JobFiles): void {
    this.#pieces = piecesOf(files);
    this.sentAt = performance.now();
    this.send(job);
  }

  #sendMore(count: number): void {
    for (let left = count; left > 0; left--) {
      const next = this.#pieces?.next();
      if (next === undefined || next.done === true) return;
      this.sentAt = performance.now();
      this.send({ kind: "piece", bytes: next.value });
    }
  }

  /** Ends the workers that are still running, and the connection. */
  close(): void {
    if (this.workers.some(({ isOver }) => !isOver)) this.send({ kind: "kill" });
    this.#options.line.close();
  }

  #take(value: unknown): void {
    let reply: AgentReply;
    try {
      reply = openReply(value, `The agent on ${this.host}`);
      this.#checkTurn(reply);
    } catch (error) {
      for (const worker of this.workers) worker.fail(errorMessage(error), "not understood");
      this.#answer(error as Error);
      return this.close();
    }
    this.#hear(reply);
  }

  /**
   * An agent may speak only of its own workers, and only once it has taken the job. Throws
   * PROTOCOL.
   */
  #checkTurn(reply: AgentReply): void {
    const { kind } = reply;
    const isAnswer = kind === "accepted" || kind === "refused";
    const isBefore = isAnswer || kind === "more";
    const fault =
      isBefore === this.#hasAnswered
        ? `"${kind}" out of turn`
        : "rank" in reply && this.#worker(reply.rank) === undefined
          ? `word of worker ${reply.rank}, which it does not have`
          : kind === "event" && this.workers[0]?.rank !== 0
            ? "an event, but does not lead"
            : kind === "listening" && this.#listening.has(reply.rank)
              ? `two ports of worker ${reply.rank}`
              : undefined;
    if (isAnswer) this.#hasAnswered = true;
    if (kind === "listening") this.#listening.add(reply.rank);
    if (fault === undefined) return;
    throw new LockstepError("PROTOCOL", `The agent on ${this.host} sent ${fault}.`, {
      fields: { host: this.host },
    });
  }

  #hear(reply: AgentReply): void {
    const { onEvent, onListening } = this.#options;
    switch (reply.kind) {
      case "more":
        return this.#sendMore(reply.pieces);
      case "accepted":
        return this.#answer();
      case "refused":
        return this.#answer(thrown(this.#placed({ code: undefined, ...reply.error })));
      case "event":
        return onEvent(reply.event);
      case "listening":
        return onListening(reply.rank, reply.port);
      case "failed": {
        const error = this.#placed({ code: undefined, ...reply.error });
        return this.#worker(reply.rank)?.fail(error, reply.crash);
      }
      case "ended":
        return this.#worker(reply.rank)?.end(reply.outcome);
    }
  }

  #worker(rank: number): RemoteWorker | undefined {
    return this.workers.find((worker) => worker.rank === rank);
  }

  #agentLost(why: string): LockstepError {
    const { host } = this;
    return new LockstepError("PEER_LOST", `The agent on ${host} is lost: ${why}.`, {
      fields: { host },
    });
  }

  /** Adds to an error the host on which it happened, and the host of the worker that it names. */
  #placed({ code, text, fields }: ErrorMessage): ErrorMessage {
    const { peer } = fields;
    const where = typeof peer === "number" ? this.#options.hostOf(peer) : undefined;
    const tail = where === undefined ? "" : `\n  Worker ${String(peer)} is on ${where}.`;
    // Only lockstep's own code runs on the agent's machine.
    const what =
      code === undefined
        ? "lockstep failed, and this is a bug in lockstep. Please report it.\n"
        : "";
    return {
      code: code ?? "PEER_FAILED",
      text: `On ${this.host}: ${what}${text.replace(/^Worker /, "worker ")}${tail}`,
      fields: { ...fields, host: where ?? this.host },
    };
  }

  #lost(why: string): void {
    const { stoodStillMs } = this.#options.clock;
    const error = stoodStillMs > 0 ? stoodStill(stoodStillMs) : this.#agentLost(why);
    this.#answer(error);
    for (const worker of this.workers) {
      if (!worker.isOver) worker.fail(errorMessage(error), why);
      worker.end(undefined);
    }
  }
}

/** The bytes of all files, one after the other, in base64. */
function* piecesOf(files: JobFiles): Generator<string> {
  for (const pieces of files.values()) {
    for (const piece of pieces) {
      for (let at = 0; at < piece.byteLength; at += PIECE_BYTES) {
        yield Buffer.from(piece.subarray(at, at + PIECE_BYTES)).toString("base64");
      }
    }
  }
}

function stoodStill(milliseconds: number): LockstepError {
  const seconds = Math.round(milliseconds / 1000);
  return new LockstepError(
    "ABORTED",
    `This command itself was stopped, for ${seconds} s, and the agents wait 10 s for it. They save the run and stop.`,
    { hint: "Continue it with the same command and --resume.", fields: { seconds } },
  );
}

function thrown({ code, text, fields }: ErrorMessage): Error {
  return code === undefined ? new Error(text) : new LockstepError(code, text, { fields });
}

export class RemoteWorker implements Watched {
  readonly rank: number;
  readonly failed: Promise<ErrorMessage>;
  readonly ended: Promise<void>;
  failure: ErrorMessage | undefined;
  crash: string | undefined;
  outcome: TrainResult["outcome"] | undefined;
  isOver = false;
  readonly #agent: RemoteAgent;
  #onFail: (error: ErrorMessage) => void = () => undefined;
  #onEnd: () => void = () => undefined;

  constructor(rank: number, agent: RemoteAgent) {
    this.rank = rank;
    this.#agent = agent;
    this.failed = new Promise((resolve) => {
      this.#onFail = resolve;
    });
    this.ended = new Promise((resolve) => {
      this.#onEnd = resolve;
    });
  }

  fail(error: ErrorMessage, crash?: string): void {
    if (this.failure !== undefined) return;
    this.failure = error;
    this.crash = crash;
    this.#onFail(error);
  }

  end(outcome: TrainResult["outcome"] | undefined): void {
    if (this.isOver) return;
    this.isOver = true;
    this.outcome = outcome;
    this.#onEnd();
  }

  stop(alone = false): void {
    if (this.rank === this.#agent.workers[0]?.rank) this.#agent.send({ kind: "stop", alone });
  }

  /** Kills all workers of the agent. It does not wait for the agent, which may be out of reach. */
  kill(): void {
    if (!this.isOver) this.#agent.send({ kind: "kill" });
    this.end(undefined);
  }
}
