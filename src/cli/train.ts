/** `lockstep train FILE`. */
import { existsSync, statSync } from "node:fs";
import { availableParallelism } from "node:os";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";
import { escapePath } from "tinyglobby";
import { type DataSource, text } from "../data/index.ts";
import { createOrtEngine } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import { type EventSink, jsonlSink, terminalSink } from "../telemetry/index.ts";
import {
  type Beginning,
  FILES,
  loadRun,
  openRunFolder,
  overrideRun,
  type Run,
  train,
} from "../train/index.ts";
import { commandToResume } from "./command.ts";
import { stopOnSignals } from "./signals.ts";

export interface TrainFlags {
  readonly steps?: number;
  readonly batch?: number;
  readonly threads?: number;
  readonly seed?: number;
  readonly out?: string;
  readonly data?: readonly string[];
  readonly resume?: boolean;
  readonly anew?: boolean;
  readonly dump?: string;
}

export async function trainCommand(file: string, flags: TrainFlags): Promise<void> {
  const { steps, batch, seed } = flags;
  const beginning = beginningOf(flags);
  const loaded = await loadRun(file);
  const data = flags.data && textOf(flags.data, loaded);
  const run = overrideRun(loaded, { steps, batch, seed, data });
  const folder = await openRunFolder(flags.out ?? join("runs", basename(run.name)));
  const show = terminalSink({
    stream: process.stdout,
    now: () => performance.now(),
    env: process.env,
    resumeCommand: commandToResume(process.argv, process.env, process.cwd()),
  });
  const metrics = jsonlSink(folder.file(FILES.metrics), Date.now);
  const stop = stopOnSignals(() => show({ type: "stopping" }));
  const engine = createOrtEngine({
    threads: flags.threads ?? availableParallelism(),
    ...(flags.dump === undefined ? {} : { dump: flags.dump }),
  });
  try {
    const { outcome } = await train(run, {
      engine,
      folder,
      baseDir: resolve(dirname(file)),
      beginning,
      signal: stop.signal,
      now: () => performance.now(),
      onEvent: both(metrics.sink, show),
    });
    if (outcome === "stopped") process.exitCode = stop.status();
  } finally {
    stop.end();
    metrics.close();
    await engine.close();
  }
}

function beginningOf({ resume, anew }: TrainFlags): Beginning {
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
