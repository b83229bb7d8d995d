/** `lockstep train FILE`. */
import { existsSync, statSync } from "node:fs";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";
import { escapePath } from "tinyglobby";
import { type DataSource, text } from "../data/index.ts";
import { createOrtEngine } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import { availableCores, launchLocal, launchOnHosts } from "../launch/index.ts";
import type { ParallelOptions } from "../parallel/index.ts";
import { type EventSink, jsonlSink, terminalSink } from "../telemetry/index.ts";
import {
  type Beginning,
  type Changeable,
  FILES,
  loadRun,
  openRunFolder,
  overrideRun,
  type Run,
  readCheckpointHead,
  settleMicroBatches,
  type TrainOptions,
  type TrainResult,
  train,
} from "../train/index.ts";
import { requireToken } from "./agent.ts";
import { commandToResume } from "./command.ts";
import { stopOnSignals } from "./signals.ts";
import { type WorkersAsked, workersFor } from "./workers.ts";

export interface TrainFlags extends ParallelOptions {
  readonly steps?: number;
  readonly batch?: number;
  readonly workers?: WorkersAsked;
  /** Agents; `workers` is then the number on each. */
  readonly hosts?: readonly string[];
  readonly token?: string;
  readonly tls?: boolean;
  readonly threads?: number;
  readonly seed?: number;
  readonly out?: string;
  readonly data?: readonly string[];
  readonly resume?: boolean;
  readonly change?: readonly Changeable[];
  readonly anew?: boolean;
  readonly dump?: string;
}

export async function trainCommand(file: string, flags: TrainFlags): Promise<void> {
  const { steps, batch, seed, parallel, zero } = flags;
  const beginning = beginningOf(flags);
  const loaded = await loadRun(file);
  const data = flags.data && textOf(flags.data, loaded);
  const overrides = { steps, batch, seed, data, parallel, zero };
  const run = overrideRun(loaded, overrides);
  checkHosts(flags);
  const cores = availableCores();
  const out = flags.out ?? join("runs", basename(run.name));
  const folder = await openRunFolder(out);
  // The folder of a run on hosts is theirs.
  const head =
    beginning === "resume" && flags.hosts === undefined
      ? await readCheckpointHead(folder)
      : undefined;
  const { each, all: workers } = workersFor({
    asked: flags.workers,
    threads: flags.threads,
    cores,
    microBatches: settleMicroBatches(run, head?.identity["microBatches"]).microBatches,
    hosts: flags.hosts?.length,
  });
  const show = terminalSink({
    stream: process.stdout,
    now: () => performance.now(),
    env: process.env,
    resumeCommand: commandToResume(process.argv, process.env, process.cwd()),
  });
  // The first of several workers writes the run's folder, figures too.
  const isHere = workers === 1 && flags.hosts === undefined;
  const metrics = isHere
    ? jsonlSink(folder.file(FILES.metrics), {
        now: Date.now,
        onTrouble: (text) => show({ type: "notice", text }),
      })
    : undefined;
  const stop = stopOnSignals(() => show({ type: "stopping" }));
  const threads = flags.threads ?? Math.max(1, Math.floor(cores / workers));
  const shared = {
    baseDir: resolve(dirname(file)),
    beginning,
    changes: flags.change,
    signal: stop.signal,
    onEvent: metrics === undefined ? show : both(show, metrics.sink),
  };
  const { dump, hosts } = flags;
  try {
    const outcome =
      hosts !== undefined
        ? await launchOnHosts({
            ...shared,
            file,
            overrides: { steps, batch, seed },
            out,
            hosts,
            token: requireToken(flags.token),
            tls: flags.tls ?? false,
            root: process.cwd(),
            workers: each,
            threads: flags.threads,
          })
        : workers === 1
          ? await trainHere(
              run,
              { ...shared, folder, now: () => performance.now() },
              { threads, dump },
            )
          : await launchLocal({ ...shared, file, overrides, out, workers, threads, dump });
    if (outcome === "stopped") process.exitCode = stop.status();
  } finally {
    stop.end();
    metrics?.close();
  }
}

/** One worker is this very process: nothing is started, nothing shared. */
async function trainHere(
  run: Run,
  options: Omit<TrainOptions, "engine">,
  { threads, dump }: { readonly threads: number; readonly dump: string | undefined },
): Promise<TrainResult["outcome"]> {
  const engine = createOrtEngine({ threads, ...(dump === undefined ? {} : { dump }) });
  try {
    return (await train(run, { ...options, engine })).outcome;
  } finally {
    await engine.close();
  }
}

/** Throws INVALID_OPTION. */
function checkHosts({ hosts, data, dump, tls }: TrainFlags): void {
  if (hosts === undefined && tls === true) {
    throw new LockstepError(
      "INVALID_OPTION",
      "--tls is for --hosts: a run of one machine sends nothing.",
    );
  }
  if (hosts === undefined || (data === undefined && dump === undefined)) return;
  throw new LockstepError("INVALID_OPTION", "--data and --dump are not for --hosts.", {
    hint: "Name the data in the run file: it is the same on every host.",
  });
}

function beginningOf({ resume, anew, change }: TrainFlags): Beginning {
  if (change !== undefined && resume !== true) {
    throw new LockstepError("INVALID_OPTION", "--change is for a run that goes on: --resume.");
  }
  if (resume === true && anew === true) {
    throw new LockstepError(
      "INVALID_OPTION",
      "--resume goes on with a run and --anew begins it from the start: give one of them.",
    );
  }
  if (resume === true) return "resume";
  return anew === true ? "anew" : "new";
}

/** Globs, files and folders from the shell, in place of the run's text; its other options (a tokenizer) stay. */
function textOf(words: readonly string[], run: Run): DataSource {
  const globs = words.map((word) => {
    const path = resolve(word);
    if (!existsSync(path)) return isAbsolute(word) ? word : `${escapePath(process.cwd())}/${word}`;
    return statSync(path).isDirectory() ? `${escapePath(path)}/**/*` : escapePath(path);
  });
  const { data } = run;
  return data.kind === "text" ? { ...data, globs } : text(globs);
}

function both(first: EventSink, second: EventSink): EventSink {
  return (event) => {
    first(event);
    second(event);
  };
}
