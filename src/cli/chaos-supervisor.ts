/**
 * Runs the launcher of a run as a process of its own, so that it can be killed: it is started again
 * at once, and takes its workers over, which have gone on meanwhile.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { startAgent } from "../agent/index.ts";
import { LockstepError } from "../errors.ts";
import type { LocalProcess, LocalWorker, LocalWorkers } from "../launch/index.ts";
import { namedFolder } from "../run/index.ts";
import { type EventSink, type History, NO_HISTORY } from "../telemetry/index.ts";
import { type Deed, type FromLauncher, LAUNCHER, type ToLauncher } from "./chaos-messages.ts";
import { stopOnSignals } from "./signals.ts";
import type { TrainFlags } from "./target.ts";
import { terminal } from "./terminal.ts";
import type { Onlooker } from "./train.ts";

/** The launcher of a run, which is another process each time that it is started. */
export class KilledLauncher implements LocalWorkers {
  history: History = NO_HISTORY;
  #child: ChildProcess | undefined;
  #list: readonly LocalWorker[] = [];
  /** What it was told to do to workers, and has not done yet. */
  #underWay = 0;
  /** The places at which another worker may start, told to a launcher once it has its workers. */
  #toReopen: string[] = [];

  /**
   * Kills it by SIGKILL, if the run has begun.
   * @returns false if it is away, or has to do something to a worker first
   */
  readonly kill = (): boolean => {
    if (this.#underWay > 0 || !this.#list.some(({ isMember }) => isMember)) return false;
    this.#list = [];
    const child = this.#child;
    this.#child = undefined;
    return child?.kill("SIGKILL") ?? false;
  };

  list(): readonly LocalWorker[] {
    return this.#list;
  }

  process(worker: number): LocalProcess | undefined {
    const does = (deed: Deed) => {
      this.#underWay += 1;
      this.#tell({ kind: "do", worker, deed });
      return this.#list.some(({ number }) => number === worker);
    };
    return {
      signal: (...given) => does({ name: "signal", given }),
      flipBit: (...given) => does({ name: "flipBit", given }),
      failDisk: (...given) => does({ name: "failDisk", given }),
      failLinks: (...given) => does({ name: "failLinks", given }),
    };
  }

  reopen(place: string): void {
    this.#toReopen.push(place);
    this.#reopenAll();
  }

  /**
   * Trains over agents until the run has ended, in however many launchers.
   * @returns the exit status of the last one
   */
  async train(
    file: string,
    flags: TrainFlags,
    resumeCommand: string,
    { onEvent, onReady }: Onlooker,
  ): Promise<number> {
    const show = terminal(resumeCommand);
    let isReady = false;
    const stop = stopOnSignals(() => {
      if (isReady) this.#child?.kill("SIGTERM");
    });
    const state = await mkdtemp(join(tmpdir(), "lockstep-chaos-"));
    try {
      for (let asked: TrainFlags = { ...flags, state }; ; ) {
        isReady = false;
        const child = this.#start(
          { kind: "train", file, flags: asked, resumeCommand },
          (ready) => {
            isReady = true;
            onReady(show, namedFolder(ready));
            // It was asked for before there was anyone to hear it.
            if (stop.signal.aborted) child.kill("SIGTERM");
          },
          toBoth(show, onEvent),
        );
        const [status, name] = (await once(child, "close")) as [
          number | null,
          NodeJS.Signals | null,
        ];
        const isKilled = this.#child === undefined;
        this.#child = undefined;
        this.#list = [];
        if (!isKilled && stop.signal.aborted) return status === 0 ? 0 : stop.status();
        if (!isKilled) return endOf(status, name);
        const { anew: _, ...rest } = asked;
        asked = { ...rest, resume: true };
      }
    } finally {
      stop.end();
      await rm(state, { recursive: true, force: true });
    }
  }

  #start(
    train: ToLauncher & { readonly kind: "train" },
    onReady: (folder: string) => void,
    onEvent: EventSink,
  ): ChildProcess {
    const [program, script = ""] = process.argv;
    // Signals of the terminal are passed on to it, once it takes them.
    const child = spawn(program as string, [...process.execArgv, script, LAUNCHER], {
      stdio: ["ignore", "inherit", "inherit", "ipc"],
      serialization: "advanced",
      detached: true,
    });
    [this.#child, this.#underWay] = [child, 0];
    child.on("message", (message: FromLauncher) => {
      if (this.#child !== child) return; // it was killed
      if (message.kind === "event") onEvent(message.event);
      else if (message.kind === "ready") onReady(message.folder);
      else if (message.kind === "done") this.#underWay -= 1;
      else {
        [this.#list, this.history] = [message.list, message.history];
        this.#reopenAll();
      }
    });
    this.#tell(train);
    return child;
  }

  #tell(message: ToLauncher): void {
    if (this.#child?.connected === true) this.#child.send(message, () => undefined);
  }

  #reopenAll(): void {
    if (this.#list.length === 0) return;
    for (const place of this.#toReopen.splice(0)) this.#tell({ kind: "reopen", place });
  }
}

/**
 * Calls `body` with the flags that name the agents of a run. A run without hosts has an agent in
 * this process, so that its workers outlive the launcher.
 */
export async function withHosts<Result>(
  flags: TrainFlags,
  workers: number,
  body: (flags: TrainFlags) => Promise<Result>,
): Promise<Result> {
  if (flags.hosts !== undefined) return body(flags);
  const folder = process.cwd();
  const token = randomBytes(16).toString("hex");
  const agent = await startAgent({
    host: "127.0.0.1",
    port: 0,
    token,
    folder,
    dataRoots: (flags.dataRoot ?? [folder]).map((path) => resolve(path)),
    maxWorkers: workers,
  });
  try {
    return await body({ ...flags, workers, hosts: [agent.address], token });
  } finally {
    await agent.close();
  }
}

function toBoth(first: EventSink, second: EventSink): EventSink {
  return (event) => {
    first(event);
    second(event);
  };
}

function endOf(status: number | null, name: NodeJS.Signals | null): number {
  if (status !== null) return status;
  throw new LockstepError("PEER_LOST", `The launcher of the run was ended by ${name}.`, {
    hint: "Start the same command again with --resume.",
  });
}
