/**
 * A job that an agent has taken: its files while they are received, and the workers of this machine
 * from their start to their end.
 */
import { LockstepError } from "../errors.ts";
import { openJob, readJobFolder } from "../job/index.ts";
import { availableCores, Signs, WorkerProcess } from "../launch/index.ts";
import type { PortRange } from "../net/index.ts";
import type { AgentJob, AgentReply, Assignment, Told } from "../protocol/index.ts";
import { IncomingJob } from "./incoming.ts";
import { outputAt } from "./places.ts";

export interface AssignedJobOptions {
  readonly request: AgentJob;
  readonly host: string;
  readonly ports?: PortRange | undefined;
  readonly token: string;
  readonly tls: boolean;
  readonly folder: string;
  readonly dataRoots: readonly string[];
  /** The most workers that may run here at a time. */
  readonly maxWorkers: number;
  readonly maxJobBytes: number;
  readonly tell: (reply: AgentReply) => void;
  /** Receives the reason if the job is refused after its files were received. */
  readonly refuse: (error: unknown) => void;
}

/** How long workers may take to stop and save after their launcher has vanished. */
const ABANDONED_MS = 30_000;
/** The most threads of a worker, as a multiple of the machine's cores. */
const MAX_OVERLOAD = 4;

export class AssignedJob {
  /** Resolves when no process is left. */
  readonly ended: Promise<void>;
  readonly #options: AssignedJobOptions;
  readonly #incoming: IncomingJob;
  readonly #workers = new Map<number, WorkerProcess>();
  readonly #signs: Signs;
  /** The files of the job, once they are received and checked. */
  #job: string | undefined;
  #out: string;
  #end: () => void = () => undefined;
  #emptied: () => void = () => undefined;
  #timer: NodeJS.Timeout | undefined;
  #isOver = false;
  #isEnding = false;

  /**
   * Throws INVALID_OPTION for a job that asks for more than this machine allows, and RUN_FOLDER for
   * an output folder that lies elsewhere.
   */
  constructor(options: AssignedJobOptions) {
    const { request, folder, maxWorkers, maxJobBytes, tell } = options;
    checkLoad(request, maxWorkers);
    this.#out = outputAt(folder, request.out);
    this.#options = options;
    this.#incoming = new IncomingJob({
      files: request.files,
      maxBytes: maxJobBytes,
      more: (pieces) => tell({ kind: "more", pieces }),
    });
    this.#signs = new Signs(this.#workers, (alive, stopped) =>
      tell({ kind: "signs", alive: [...alive], stopped: [...stopped] }),
    );
    this.ended = this.#work();
  }

  /** Receives the job, and lets workers start until it ends. */
  async #work(): Promise<void> {
    const isOver = new Promise<void>((resolve) => {
      this.#end = resolve;
    });
    try {
      const job = await this.#incoming.folder;
      // The workers read the job's graphs: a fault in a graph must not end the agent.
      openJob(readJobFolder(job));
      this.#job = job;
      if (!this.#isEnding) {
        this.#options.tell({ kind: "accepted" });
        await isOver;
      }
    } catch (error) {
      this.#isEnding = true;
      this.#options.refuse(error);
    }
    this.#signs.close();
    await this.#incoming.remove();
    this.#isOver = true;
    clearTimeout(this.#timer);
  }

  /** Starts a worker. Throws PROTOCOL for more workers than were announced, or the same twice. */
  start(number: number): void {
    const { request, host, ports, token, tls, dataRoots: roots, tell } = this.#options;
    const { own, beginning, overrides, changes, group } = request;
    if (this.#isEnding) return;
    if (this.#job === undefined || this.#workers.has(number) || this.#workers.size >= own) {
      throw new LockstepError("PROTOCOL", `Worker ${number} cannot be started here now.`);
    }
    const threads = request.threads ?? Math.max(1, Math.floor(availableCores() / own));
    const worker = new WorkerProcess(number, {
      said: (message) => {
        if (message.kind === "beat") this.#signs.beat(number);
        else tell({ kind: "said", worker: number, message });
      },
      ended: (end) => {
        this.#workers.delete(number);
        const { pid, status, signal, words } = end;
        tell({ kind: "ended", worker: number, pid, status, signal, words });
        if (this.#workers.size > 0) return;
        this.#emptied();
        if (this.#isEnding) this.#end();
      },
    });
    this.#workers.set(number, worker);
    const job: Assignment = {
      job: this.#job,
      roots,
      overrides,
      out: this.#out,
      beginning,
      changes,
      number,
      threads,
      group,
      network: { host, ports, token, tls },
    };
    worker.tell({ kind: "job", job });
  }

  /** A worker that has ended meanwhile is told nothing. */
  tell(number: number, message: Told): void {
    this.#workers.get(number)?.tell(message);
  }

  signal(number: number, name: NodeJS.Signals): void {
    this.#workers.get(number)?.signal(name);
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Whether the job was ended or abandoned, while its processes may still be running. */
  get isEnding(): boolean {
    return this.#isEnding;
  }

  /** Throws PROTOCOL for a piece of the job that was not asked for. */
  take(piece: string): void {
    this.#incoming.take(piece);
  }

  /** Asks all workers to leave the run after a step, as a SIGTERM to each of them does. */
  drain(): void {
    for (const number of this.#workers.keys()) {
      this.#options.tell({ kind: "said", worker: number, message: { kind: "drain" } });
    }
  }

  /** Resolves when no worker is left. */
  get empty(): Promise<void> {
    return new Promise((resolve) => {
      this.#emptied = resolve;
    });
  }

  get workers(): number {
    return this.#workers.size;
  }

  kill(): void {
    this.#isEnding = true;
    this.#incoming.abort();
    for (const worker of this.#workers.values()) worker.signal("SIGKILL");
    if (this.#workers.size === 0) this.#end();
  }

  /** Called when the launcher is gone: the workers are asked to save what was done. */
  abandon(): void {
    if (this.#isOver) return;
    this.#incoming.abort();
    if (this.#workers.size === 0) return this.kill();
    this.#isEnding = true;
    for (const worker of this.#workers.values()) worker.tell({ kind: "stop", alone: true });
    this.#timer ??= setTimeout(() => this.kill(), ABANDONED_MS);
  }
}

function checkLoad({ own, threads = 1 }: AgentJob, maxWorkers: number): void {
  if (own > maxWorkers) {
    throw new LockstepError(
      "INVALID_OPTION",
      `This agent runs at most ${maxWorkers} workers, and ${own} were asked for.`,
      { hint: "Ask for fewer, or start it with a larger --max-workers.", fields: { maxWorkers } },
    );
  }
  const cores = availableCores();
  if (threads <= MAX_OVERLOAD * cores) return;
  throw new LockstepError(
    "INVALID_OPTION",
    `${threads} threads for each worker were asked for; this machine has ${cores} cores.`,
    { hint: `Ask for ${MAX_OVERLOAD * cores} at most.`, fields: { threads, cores } },
  );
}
