/** An agent as the launcher sees it: it takes the job, and starts workers on its machine. */
import { LockstepError } from "../errors.ts";
import type { JobFiles } from "../job/index.ts";
import { formatAddress, type Line } from "../net/index.ts";
import {
  type AgentJob,
  type AgentReply,
  type AgentRequest,
  type ErrorMessage,
  envelope,
  openReply,
  PIECE_BYTES,
} from "../protocol/index.ts";
import type { WorkerHandle } from "./handle.ts";
import type { OnSigns } from "./signs.ts";

export interface RemoteOptions {
  /** The agent's name in the run: its host:port, as the user wrote it. */
  readonly name: string;
  /** The host at which its workers listen. */
  readonly host: string;
  readonly line: Line;
  readonly onSigns: OnSigns;
  /**
   * The agent is gone, with its workers: the line has closed, or (`fault`) the agent sent what none
   * sends.
   */
  readonly onClosed: (why: string, fault: LockstepError | undefined) => void;
  /** The node of a rank of the present generation. */
  readonly nodeOf: (rank: number) => string | undefined;
}

type Signal = Extract<AgentRequest, { readonly kind: "signal" }>["name"];

export class RemoteAgent {
  readonly name: string;
  /**
   * Resolves when the agent has taken the job. Rejects with the agent's reason for refusing it, or
   * with PEER_LOST.
   */
  readonly accepted: Promise<void>;
  readonly #options: RemoteOptions;
  /** The workers whose end was not told. */
  readonly #workers = new Map<number, WorkerHandle>();
  /** When a part of the job was last sent, in milliseconds of `performance.now()`. */
  sentAt = performance.now();
  /** What it has sent that no agent sends. */
  fault: LockstepError | undefined;
  #pieces: Iterator<string> | undefined;
  #hasAnswered = false;
  #isOver = false;
  #answer: (error?: Error) => void = () => undefined;

  constructor(options: RemoteOptions) {
    this.#options = options;
    this.name = options.name;
    this.accepted = new Promise((resolve, reject) => {
      this.#answer = (error) => (error === undefined ? resolve() : reject(error));
    });
    this.accepted.catch(() => undefined);
    options.line.handler = {
      message: (value) => this.#take(value),
      closed: (why) => this.#over(why),
    };
  }

  /** Sends the job and then its files, as fast as the agent takes them. */
  offer(job: AgentJob, files: JobFiles): void {
    this.#pieces = piecesOf(files);
    this.sentAt = performance.now();
    this.#send(job);
  }

  /** Starts a worker, and gives its handle a body. */
  start(worker: WorkerHandle): void {
    const { number } = worker;
    if (this.#isOver) return worker.close(refused("its agent is gone"));
    this.#workers.set(number, worker);
    worker.body = {
      tell: (message) => {
        // An agent gives its workers their job itself.
        if (message.kind !== "job") this.#send({ kind: "tell", worker: number, message });
      },
      signal: (name) => {
        this.#send({ kind: "signal", worker: number, name: name as Signal });
        return !this.#isOver;
      },
    };
    this.#send({ kind: "start", worker: number });
  }

  /** Ends the job, its workers, and the connection. */
  end(): void {
    this.#send({ kind: "end" });
    this.#isOver = true;
    this.#options.line.close();
  }

  #send(request: AgentRequest): void {
    if (!this.#isOver) this.#options.line.send(envelope(request));
  }

  #sendMore(count: number): void {
    for (let left = count; left > 0; left--) {
      const next = this.#pieces?.next();
      if (next === undefined || next.done === true) return;
      this.sentAt = performance.now();
      this.#send({ kind: "piece", bytes: next.value });
    }
  }

  #take(value: unknown): void {
    if (this.#isOver) return;
    let reply: AgentReply;
    try {
      reply = openReply(value, `The agent on ${this.name}`);
      this.#checkTurn(reply);
    } catch (error) {
      this.#over("it sent a message that is not understood", error as LockstepError);
      return this.#options.line.close();
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
    const of = kind === "signs" ? [...reply.alive, ...reply.stopped] : [];
    if (kind === "said" || kind === "ended") of.push(reply.worker);
    const stranger = of.find((worker) => !this.#workers.has(worker));
    const fault =
      isBefore === this.#hasAnswered
        ? `"${kind}" out of turn`
        : stranger !== undefined
          ? `word of worker ${stranger}, which it does not have`
          : undefined;
    if (isAnswer) this.#hasAnswered = true;
    if (fault === undefined) return;
    throw new LockstepError("PROTOCOL", `The agent on ${this.name} sent ${fault}.`, {
      fields: { host: this.name },
    });
  }

  #hear(reply: AgentReply): void {
    switch (reply.kind) {
      case "more":
        return this.#sendMore(reply.pieces);
      case "accepted":
        return this.#answer();
      case "refused":
        return this.#answer(thrown(this.#placed(reply.error)));
      case "signs":
        return this.#options.onSigns(reply.alive, reply.stopped);
      case "said": {
        const { message } = reply;
        const worker = this.#workers.get(reply.worker) as WorkerHandle;
        if (message.kind === "error") {
          return worker.hear({ kind: "error", error: this.#placed(message.error) });
        }
        if (message.kind === "ready" && message.port !== undefined) {
          worker.address = formatAddress({ host: this.#options.host, port: message.port });
        }
        return worker.hear(message);
      }
      case "ended": {
        const worker = this.#workers.get(reply.worker) as WorkerHandle;
        this.#workers.delete(reply.worker);
        return worker.close(reply);
      }
    }
  }

  /** Adds to an error the host on which it happened, and the host of the worker that it names. */
  #placed({ code, text, fields }: ErrorMessage): ErrorMessage {
    const { peer } = fields;
    const where = typeof peer === "number" ? this.#options.nodeOf(peer) : undefined;
    const tail = where === undefined ? "" : `\n  Worker ${String(peer)} is on ${where}.`;
    // Only lockstep's own code runs on the agent's machine.
    const what =
      code === undefined
        ? "lockstep failed, and this is a bug in lockstep. Please report it.\n"
        : "";
    return {
      code: code ?? "PEER_FAILED",
      text: `On ${this.name}: ${what}${text.replace(/^Worker /, "worker ")}${tail}`,
      fields: { ...fields, host: where ?? this.name },
    };
  }

  #over(why: string, fault?: LockstepError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.fault = fault;
    const { name } = this;
    const lost = new LockstepError("PEER_LOST", `The agent on ${name} is lost: ${why}.`, {
      fields: { host: name },
    });
    this.#answer(fault ?? lost);
    // Before its workers are given up, so that none is started there again.
    this.#options.onClosed(why, fault);
    const left = [...this.#workers.values()];
    this.#workers.clear();
    for (const worker of left) worker.close(refused(`its agent is gone: ${why}`));
  }
}

/** Nothing that the worker says is taken any more. */
export function refused(why: string) {
  return { status: null, signal: null, words: "", refused: why };
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

function thrown({ code, text, fields }: ErrorMessage): Error {
  return code === undefined ? new Error(text) : new LockstepError(code, text, { fields });
}
