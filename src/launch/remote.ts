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
  type Standing,
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
  /** A worker of the agent cannot be reached any more; called for all of them before they end. */
  readonly onUnreachable: (worker: number, why: string) => void;
  /**
   * The agent is gone, with its workers: the line has closed, or (`fault`) the agent sent what none
   * sends.
   */
  readonly onClosed: (why: string, fault: LockstepError | undefined) => void;
  /** The node of a rank of the present generation. */
  readonly nodeOf: (rank: number) => string | undefined;
}

/** How long an agent may take to end a worker while it says nothing at all. */
const HUNG_MS = 3000;

type Signal = Extract<AgentRequest, { readonly kind: "signal" }>["name"];

export class RemoteAgent {
  readonly name: string;
  /**
   * Resolves when the agent has taken the job. Rejects with the agent's reason for refusing it, or
   * with PEER_LOST.
   */
  readonly accepted: Promise<void>;
  /** Resolves with its workers when it was asked for them, or with undefined if it has no job. */
  readonly takenOver: Promise<readonly Standing[] | undefined>;
  readonly #options: RemoteOptions;
  /** The workers whose end was not told. */
  readonly #workers = new Map<number, WorkerHandle>();
  /** When a part of the job was last sent, in milliseconds of `performance.now()`. */
  sentAt = performance.now();
  /** What it has sent that no agent sends. */
  fault: LockstepError | undefined;
  /** Why it is gone, if it was not this side that has ended it. */
  lost: LockstepError | undefined;
  #pieces: Iterator<string> | undefined;
  #hasAnswered = false;
  /** What the workers of a job that was taken over say before they have handles. */
  #early: AgentReply[] | undefined;
  #isOver = false;
  #answer: (error?: Error) => void = () => undefined;
  #giveOver: (workers: readonly Standing[] | undefined) => void = () => undefined;

  constructor(options: RemoteOptions) {
    this.#options = options;
    this.name = options.name;
    this.accepted = new Promise((resolve, reject) => {
      this.#answer = (error) => (error === undefined ? resolve() : reject(error));
    });
    this.accepted.catch(() => undefined);
    this.takenOver = new Promise((resolve, reject) => {
      this.#giveOver = resolve;
      this.accepted.catch(reject);
    });
    this.takenOver.catch(() => undefined);
    options.line.handler = {
      message: (value) => this.#receive(value),
      closed: (why) => this.#over(why),
    };
  }

  /** Sends the job and then its files, as fast as the agent takes them. */
  offer(job: AgentJob, files: JobFiles): void {
    this.#pieces = piecesOf(files);
    this.sentAt = performance.now();
    this.#send(job);
  }

  /** Asks for the workers of a job whose launcher is gone. */
  takeOver(group: string, term: number): void {
    this.sentAt = performance.now();
    this.#send({ kind: "take-over", group, term });
  }

  /** Gives a worker that was taken over its handle. */
  adopt(worker: WorkerHandle, { port }: Standing): void {
    this.#embody(worker);
    if (port !== undefined) worker.address = this.#addressAt(port);
  }

  /** Hears what workers that were taken over have said meanwhile. */
  listen(): void {
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const reply of early) this.#try(() => this.#take(reply));
  }

  /** Closes the connection, and leaves the job and its workers as they are. */
  leave(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#answer(new LockstepError("ABORTED", `The agent on ${this.name} is not needed any more.`));
    this.#options.line.close();
  }

  /** Starts a worker, and gives its handle a body. */
  start(worker: WorkerHandle): void {
    if (this.#isOver) return worker.close(refused("its agent is gone"));
    this.#embody(worker);
    this.#send({ kind: "start", worker: worker.number });
  }

  #embody(worker: WorkerHandle): void {
    const { number } = worker;
    this.#workers.set(number, worker);
    worker.body = {
      tell: (message) => {
        // An agent gives its workers their job itself.
        if (message.kind !== "job") this.#send({ kind: "tell", worker: number, message });
      },
      signal: (name) => {
        this.#send({ kind: "signal", worker: number, name: name as Signal });
        if (name === "SIGKILL") setTimeout(() => this.#giveUp(worker), HUNG_MS).unref();
        return !this.#isOver;
      },
      cutOff: (ms) => this.#send({ kind: "cut-off", ms }),
    };
  }

  /** Whether the agent is gone. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** Ends the job, its workers, and the connection. */
  end(): void {
    this.#send({ kind: "end" });
    this.leave();
  }

  /** An agent that neither ends a worker nor says anything hangs; the others do not wait longer. */
  #giveUp(worker: WorkerHandle): void {
    const { line } = this.#options;
    if (worker.isOver || this.#isOver || line.silentMs < HUNG_MS) return;
    this.#over(`it was silent for ${(line.silentMs / 1000).toFixed(1)} s`);
    line.close();
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

  #receive(value: unknown): void {
    this.#try(() => {
      const reply = openReply(value, `The agent on ${this.name}`);
      if (this.#early === undefined) this.#take(reply);
      else this.#early.push(reply);
    });
  }

  /** Of an agent that sends what none sends, nothing more is taken. */
  #try(take: () => void): void {
    if (this.#isOver) return;
    try {
      take();
    } catch (error) {
      if (!(error instanceof LockstepError)) throw error;
      this.#over("it sent a message that is not understood", error);
      this.#options.line.close();
    }
  }

  #take(reply: AgentReply): void {
    this.#checkTurn(reply);
    this.#hear(reply);
  }

  /**
   * An agent may speak only of its own workers, and only once it has taken the job. Throws
   * PROTOCOL.
   */
  #checkTurn(reply: AgentReply): void {
    const { kind } = reply;
    const isAnswer = kind === "accepted" || kind === "refused" || kind === "taken-over";
    const isBefore = isAnswer || kind === "more" || kind === "nothing";
    const of =
      kind === "signs" ? [...reply.alive.map(({ worker }) => worker), ...reply.stopped] : [];
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
      case "nothing":
        return this.#giveOver(undefined);
      case "taken-over":
        this.#early = [];
        this.#answer();
        return this.#giveOver(reply.workers);
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
          worker.address = this.#addressAt(message.port);
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

  #addressAt(port: number): string {
    return formatAddress({ host: this.#options.host, port });
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
    const text = `The agent on ${name} is lost: ${why}.`;
    this.lost = fault ?? new LockstepError("PEER_LOST", text, { fields: { host: name } });
    this.#answer(this.lost);
    // Before its workers are given up, so that none is started there again.
    this.#options.onClosed(why, fault);
    const left = [...this.#workers.values()];
    this.#workers.clear();
    for (const { number } of left) this.#options.onUnreachable(number, `its agent is gone: ${why}`);
    for (const worker of left) worker.close(refused(why));
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
