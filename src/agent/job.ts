/** A job that an agent has taken: the workers of this machine, from their start to their end. */
import { dirname } from "node:path";
import { LockstepError } from "../errors.ts";
import { type AgentJob, type AgentReply, availableCores, WorkerProcess } from "../launch/index.ts";
import type { PortRange } from "../transport/index.ts";
import { outputAt, runFileAt } from "./places.ts";

export interface AssignedJobOptions {
  readonly request: AgentJob;
  readonly host: string;
  readonly ports?: PortRange | undefined;
  readonly token: string;
  readonly tls: boolean;
  readonly folder: string;
  /** That may run here at a time. */
  readonly maxWorkers: number;
  readonly tell: (reply: AgentReply) => void;
}

/** How long workers may take to stop and save when their launcher has vanished. */
const ABANDONED_MS = 30_000;
/** A worker may have so many times more threads than the machine has cores. */
const MAX_OVERLOAD = 4;

export class AssignedJob {
  /** Resolves when no process is left. */
  readonly ended: Promise<void>;
  readonly #workers: readonly WorkerProcess[];
  /** Workers of all agents. */
  readonly #size: number;
  #timer: NodeJS.Timeout | undefined;
  #isOver = false;
  #isEnding = false;

  /** Throws FILE_NOT_FOUND, RUN_FILE for a run file that is not the launcher's, or INVALID_OPTION for more than this machine can. */
  constructor(options: AssignedJobOptions) {
    const { request, host, ports, token, tls, folder, maxWorkers, tell } = options;
    checkLoad(request, maxWorkers);
    const file = runFileAt(folder, request.file, request.sha256);
    const out = outputAt(folder, request.out);
    this.#size = request.workers;
    const { own, firstRank, workers, beginning, overrides, changes, group } = request;
    const threads = request.threads ?? Math.max(1, Math.floor(availableCores() / own));
    tell({ kind: "accepted" });
    this.#workers = Array.from({ length: own }, (_, index) => {
      const rank = firstRank + index;
      const worker = new WorkerProcess(rank, (message) => {
        if (message.kind === "listening") tell({ ...message, rank });
        else if (rank === 0) tell(message);
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
        file,
        overrides,
        out,
        beginning,
        changes,
        baseDir: dirname(file),
        rank,
        workers,
        threads,
        meeting: { kind: "network", group, own, host, ports, token, tls },
      });
      return worker;
    });
    this.ended = Promise.all(this.#workers.map((worker) => worker.ended)).then(() => {
      this.#isOver = true;
      clearTimeout(this.#timer);
    });
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Whether it was ended or given up, and its processes may still be there. */
  get isEnding(): boolean {
    return this.#isEnding;
  }

  /** Throws PROTOCOL. */
  addresses(addresses: readonly string[]): void {
    if (addresses.length !== this.#size) {
      const text = `The launcher sent ${addresses.length} addresses for ${this.#size} workers.`;
      throw new LockstepError("PROTOCOL", text);
    }
    for (const worker of this.#workers) worker.tell({ kind: "addresses", addresses });
  }

  stop(alone = false): void {
    for (const worker of this.#workers) worker.stop(alone);
  }

  kill(): void {
    this.#isEnding = true;
    for (const worker of this.#workers) worker.kill();
  }

  /** The launcher is gone: what was done is saved, if that can be. */
  abandon(): void {
    if (this.#isOver) return;
    this.#isEnding = true;
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
