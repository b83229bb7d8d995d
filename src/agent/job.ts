/** A job that an agent has taken: the workers of this machine, from their start to their end. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { LockstepError } from "../errors.ts";
import { type AgentJob, type AgentReply, availableCores, WorkerProcess } from "../launch/index.ts";
import type { PortRange } from "../transport/index.ts";

export interface AssignedJobOptions {
  readonly request: AgentJob;
  readonly host: string;
  readonly ports?: PortRange | undefined;
  readonly token: string;
  readonly tls: boolean;
  readonly folder: string;
  readonly tell: (reply: AgentReply) => void;
}

/** How long workers may take to stop and save when their launcher has vanished. */
const ABANDONED_MS = 10_000;

export class AssignedJob {
  /** Resolves when no process is left. */
  readonly ended: Promise<void>;
  readonly #workers: readonly WorkerProcess[];
  #timer: NodeJS.Timeout | undefined;
  #isOver = false;
  #isEnding = false;

  /** Throws FILE_NOT_FOUND, or RUN_FILE for a run file that is not the launcher's. */
  constructor({ request, host, ports, token, tls, folder, tell }: AssignedJobOptions) {
    const file = join(folder, request.file);
    checkFile(file, request);
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
        out: join(folder, request.out),
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

  addresses(addresses: readonly string[]): void {
    for (const worker of this.#workers) worker.tell({ kind: "addresses", addresses });
  }

  stop(): void {
    for (const worker of this.#workers) worker.stop();
  }

  kill(): void {
    this.#isEnding = true;
    for (const worker of this.#workers) worker.kill();
  }

  /** The launcher is gone: what was done is saved, if that can be. */
  abandon(): void {
    if (this.#isOver) return;
    this.#isEnding = true;
    this.stop();
    this.#timer ??= setTimeout(() => this.kill(), ABANDONED_MS);
  }
}

function endOf({ rank, outcome }: WorkerProcess): AgentReply {
  return { kind: "ended", rank, ...(outcome === undefined ? {} : { outcome }) };
}

function checkFile(path: string, { file, sha256 }: AgentJob): void {
  let content: Buffer;
  try {
    content = readFileSync(path);
  } catch (error) {
    throw new LockstepError("FILE_NOT_FOUND", `There is no run file "${file}" here.`, {
      hint: "Put the run file and its data at the same place below the folder of every agent.",
      cause: error,
    });
  }
  const own = createHash("sha256").update(content).digest("hex");
  if (own === sha256) return;
  throw new LockstepError("RUN_FILE", `The run file "${file}" is another one here.`, {
    hint: `Its SHA-256 begins with ${own.slice(0, 12)}, the launcher's with ${sha256.slice(0, 12)}.`,
    fields: { file, sha256: own },
  });
}
