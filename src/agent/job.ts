/**
 * A job that an agent has taken: its files while they are received, and the workers of this machine
 * from their start to their end.
 */
import { LockstepError } from "../errors.ts";
import { openJob, readJobFolder } from "../job/index.ts";
import { availableCores, WorkerProcess } from "../launch/index.ts";
import type { PortRange } from "../net/index.ts";
import { type AgentJob, type AgentReply } from "../protocol/index.ts";
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
  #workers: readonly WorkerProcess[] = [];
  /** The number of workers that have read the job and listen. */
  #listening = 0;
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
    const out = outputAt(folder, request.out);
    this.#options = options;
    this.#incoming = new IncomingJob({
      files: request.files,
      maxBytes: maxJobBytes,
      more: (pieces) => tell({ kind: "more", pieces }),
    });
    this.ended = this.#work(out);
  }

  async #work(out: string): Promise<void> {
    try {
      const job = await this.#incoming.folder;
      // The workers read the job's graphs: a fault in a graph must not end the agent.
      openJob(readJobFolder(job));
      if (!this.#isEnding) {
        this.#options.tell({ kind: "accepted" });
        this.#workers = this.#start(job, out);
      }
    } catch (error) {
      this.#isOver = true;
      this.#isEnding = true;
      this.#options.refuse(error);
    }
    await Promise.all(this.#workers.map((worker) => worker.ended));
    await this.#incoming.remove();
    this.#isOver = true;
    clearTimeout(this.#timer);
  }

  #start(job: string, out: string): WorkerProcess[] {
    const { request, host, ports, token, tls, dataRoots: roots, tell } = this.#options;
    const { own, firstRank, workers, beginning, overrides, changes, group } = request;
    const threads = request.threads ?? Math.max(1, Math.floor(availableCores() / own));
    return Array.from({ length: own }, (_, index) => {
      const rank = firstRank + index;
      const worker = new WorkerProcess(rank, (message) => {
        if (message.kind === "listening") {
          this.#listening++;
          // All workers have read the job. Its files are removed now, so that nothing is left
          // behind if this agent is killed.
          if (this.#listening === own) void this.#incoming.remove();
          tell({ ...message, rank });
        } else if (rank === 0 && message.kind === "event") tell(message);
      });
      void worker.failed.then((error) =>
        tell({
          kind: "failed",
          rank,
          error,
          ...(worker.crash === undefined ? {} : { crash: worker.crash }),
        }),
      );
      void worker.ended.then(() => tell(endOf(worker)));
      worker.start({
        job,
        roots,
        overrides,
        out,
        beginning,
        changes,
        rank,
        workers,
        threads,
        meeting: { kind: "network", group, own, host, ports, token, tls },
      });
      return worker;
    });
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

  /** Tells the workers the addresses of all workers. Throws PROTOCOL. */
  addresses(addresses: readonly string[]): void {
    const { workers } = this.#options.request;
    if (addresses.length !== workers) {
      const text = `The launcher sent ${addresses.length} addresses for ${workers} workers.`;
      throw new LockstepError("PROTOCOL", text);
    }
    for (const worker of this.#workers) worker.tell({ kind: "addresses", addresses });
  }

  stop(alone = false): void {
    for (const worker of this.#workers) worker.stop(alone);
  }

  kill(): void {
    this.#isEnding = true;
    this.#incoming.abort();
    for (const worker of this.#workers) worker.kill();
  }

  /** Called when the launcher is gone: the workers are asked to save what was done. */
  abandon(): void {
    if (this.#isOver) return;
    this.#isEnding = true;
    this.#incoming.abort();
    this.stop(true);
    this.#timer ??= setTimeout(() => this.kill(), ABANDONED_MS);
  }
}

function endOf({ rank, outcome }: WorkerProcess): AgentReply {
  return { kind: "ended", rank, ...(outcome === undefined ? {} : { outcome }) };
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
