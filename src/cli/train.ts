/** `lockstep train FILE`. */
import { availableParallelism } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { text } from "../data/index.ts";
import { createOrtEngine } from "../engine/index.ts";
import { jsonlSink, terminalSink } from "../telemetry/index.ts";
import { loadRun, openRunFolder, overrideRun, train } from "../train/index.ts";

export interface TrainFlags {
  readonly steps?: number;
  readonly batch?: number;
  readonly threads?: number;
  readonly seed?: number;
  readonly out?: string;
  readonly data?: readonly string[];
  readonly resume?: boolean;
  readonly dump?: string;
}

export async function trainCommand(file: string, flags: TrainFlags): Promise<void> {
  const { steps, batch, seed, data } = flags;
  const run = overrideRun(await loadRun(file), {
    steps,
    batch,
    seed,
    data: data && text(data.map((glob) => resolve(glob))),
  });
  const out = flags.out ?? join("runs", basename(run.name));
  const folder = await openRunFolder(out);
  const engine = createOrtEngine({
    threads: flags.threads ?? availableParallelism(),
    ...(flags.dump === undefined ? {} : { dump: flags.dump }),
  });
  const metrics = jsonlSink(folder.file("metrics.jsonl"), Date.now);
  const show = terminalSink({ stream: process.stderr, now: () => performance.now() });
  const stop = stopOnSignals();
  try {
    await train(run, {
      engine,
      folder,
      baseDir: resolve(dirname(file)),
      resume: flags.resume === true,
      signal: stop.signal,
      now: () => performance.now(),
      onEvent: (event) => {
        show(event);
        metrics.sink(event);
      },
    });
  } finally {
    stop.end();
    metrics.close();
    await engine.close();
  }
}

/** The first Ctrl-C (or SIGTERM) asks for a clean stop; the second ends the process at once. */
function stopOnSignals(): { signal: AbortSignal; end: () => void } {
  const controller = new AbortController();
  const ask = () => {
    if (controller.signal.aborted) process.exit(130);
    controller.abort("Stopped");
    process.stderr.write(
      "\nStopping after this step. Ctrl-C again stops at once, without saving.\n",
    );
  };
  process.on("SIGINT", ask);
  process.on("SIGTERM", ask);
  return {
    signal: controller.signal,
    end: () => {
      process.off("SIGINT", ask);
      process.off("SIGTERM", ask);
    },
  };
}
