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
import { Launcher } from "./launcher.ts";
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
  /** The launcher that offers it. */
  readonly tell: (reply: AgentReply) => void;
  readonly onNews: (text: string) => void;
  /** Receives the reason if the job is refused after its files were received. */
  readonly refuse: (error: unknown) => void;
}

/** How long workers may take to stop and save after their launcher has vanished. */
const ABANDONED_MS = 30_000;
/** How long those that are in a generation may take to leave it together. */
const TOGETHER_MS = 5_000;
/** The most threads of a worker, as a multiple of the machine's cores. */
const MAX_OVERLOAD = 4;

export class AssignedJob {
  /** Resolves when no process is left. */
  readonly ended: Promise<void>;
  readonly #options: AssignedJobOptions;
  readonly #incoming: IncomingJob;
  readonly #workers = new Map<number, WorkerProcess>();
  readonly #launcher: Launcher;
  readonly #signs: Signs;
  /** The files of the job, once they are received and checked. */
  #job: string | undefined;
  #out: string;
  #end: () => void = () => undefined;
  #emptied: () => void = () => undefined;
  #timer: NodeJS.Timeout | undefined;
  #isOver = false;
  #isEnding = false;
  /** Whether its workers are to leave the run. */
  #isDraining = false;

  /**
   * Throws INVALID_OPTION for a job that asks for more than this machine allows, and RUN_FOLDER for
   * an output folder that lies elsewhere.
   */
  constructor(options: AssignedJobOptions) {
    const { request, folder, maxWorkers, maxJobBytes } = options;
    this.#launcher = new Launcher(options.tell);
    const tell = (reply: AgentReply) => this.#launcher.tell(reply);
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
        this.#launcher.tell({ kind: "accepted" });
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
    const { request, host, ports, token, tls, dataRoots: roots } = this.#options;
    const { own, beginning, overrides, changes, group } = request;
    if (this.#isEnding) return;
    if (this.#job === undefined || this.#workers.has(number) || this.#workers.size >= own) {
      throw new LockstepError("PROTOCOL", `Worker ${number} cannot be started here now.`);
    }
    const threads = request.threads ?? Math.max(1, Math.floor(availableCores() / own));
    this.#launcher.started(number);
    const worker = WorkerProcess.start(number, {
      said: (message) => {
        if (message.kind === "beat") this.#signs.beat(number, message.progress);
        else this.#launcher.tell({ kind: "said", worker: number, message });
      },
      ended: (end) => {
        this.#workers.delete(number);
        const { pid, status, signal, words } = end;
        this.#launcher.tell({ kind: "ended", worker: number, pid, status, signal, words });
        if (this.#workers.size > 0) return;
        this.#emptied();
        if (this.#isEnding) this.#end();
      },
    });
    if (worker === undefined) return;
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
    this.#launcher.told(number, message);
    this.#workers.get(number)?.tell(message);
  }

  /** Cuts the workers of this machine off from those of others, for this time. */
  cutOff(ms: number): void {
    for (const worker of this.#workers.values()) {
      worker.tell({ kind: "link-fault", fault: "partition", ms });
    }
  }

  signal(number: number, name: NodeJS.Signals): void {
    this.#workers.get(number)?.signal(name);
  }

  /** The run that the job belongs to, and the term of the launcher that has it. */
  get group(): string {
    return this.#options.request.group;
  }

  get term(): number {
    return this.#launcher.term ?? this.#options.request.term ?? 0;
  }

  /** Gives the workers, which have gone on, to another launcher of the run. */
  takeOver(term: number, tell: (reply: AgentReply) => void): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#launcher.replace(term, tell);
    if (this.#isDraining) this.drain();
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
    this.#isDraining = true;
    if (this.#launcher.isGone) return this.#stop();
    for (const number of this.#workers.keys()) {
      this.#launcher.tell({ kind: "said", worker: number, message: { kind: "drain" } });
    }
  }

  /** Resolves when no worker is left. */
  get empty(): Promise<void> {
    return new Promise((resolve) => {
      this.#emptied = resolve;
    });
  }

  get workers(): readonly number[] {
    return [...this.#workers.keys()];
  }

  /** How long its workers go on without a launcher. */
  get awaitMs(): number {
    return this.#options.request.awaitMs ?? 0;
  }

  kill(): void {
    this.#isEnding = true;
    this.#incoming.abort();
    for (const worker of this.#workers.values()) worker.signal("SIGKILL");
    if (this.#workers.size === 0) this.#end();
  }

  /**
   * Called when the launcher is gone: the workers go on for as long as the job says, and are then
   * asked to save what was done.
   */
  abandon(): void {
    const { awaitMs = 0 } = this.#options.request;
    if (this.#isOver || this.#timer !== undefined) return;
    this.#launcher.isGone = true;
    const isAwaited = awaitMs > 0 && !this.#isDraining && this.#job !== undefined;
    if (!isAwaited || this.#isEnding) return this.#stop();
    const seconds = Math.round(awaitMs / 1000);
    this.#options.onNews(`The workers go on; another launcher is awaited for ${seconds} s.`);
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#stop();
    }, awaitMs);
  }

  #stop(): void {
    this.#incoming.abort();
    if (this.#workers.size === 0) return this.kill();
    // An agent that is asked to end just after its launcher has vanished stops its workers once.
    if (this.#isEnding) return;
    clearTimeout(this.#timer);
    this.#isEnding = true;
    const stop = (alone: boolean) => {
      for (const worker of this.#workers.values()) worker.tell({ kind: "stop", alone });
    };
    // Together they stop after the same step, and save all that was done.
    stop(false);
    this.#timer = setTimeout(() => {
      stop(true);
      this.#timer = setTimeout(() => this.kill(), ABANDONED_MS);
    }, TOGETHER_MS);
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
