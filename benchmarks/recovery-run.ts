/** A run of some workers on this machine whose workers are lost on purpose, and what it tells. */
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { adamw, arrays, defineRun, gpt, tensorFrom } from "../src/index.ts";
import { makeJob, writeJob } from "../src/job/index.ts";
import { launchLocal } from "../src/launch/index.ts";
import { readSafetensors, weightsSha256 } from "../src/safetensors/index.ts";
import type { RunEvent } from "../src/telemetry/index.ts";
import type { GptSizes } from "./peers.ts";

const SAMPLES = 100;
const MANY = 1_000_000;
const PATIENCE_MS = 120_000;

/** Writes the job of a run that trains the model on fixed tokens. */
export async function writeRun(folder: string, sizes: GptSizes): Promise<string> {
  const { layers, width, heads, context, batch, vocabulary } = sizes;
  mkdirSync(folder, { recursive: true });
  const count = SAMPLES * context;
  const of = (shift: number) =>
    tensorFrom(
      "int32",
      [SAMPLES, context],
      Array.from({ length: count }, (_, i) => (((i + shift) * 7919) % 100_003) % vocabulary),
    );
  const run = defineRun({
    model: gpt({ layers, width, heads, context, vocabulary }),
    data: arrays({ ids: of(0), targets: of(1) }, { heldOut: 0 }),
    optimizer: adamw({ learningRate: 1e-4 }),
    clipNorm: 1,
    batch,
    microBatches: batch,
    steps: MANY,
    checkpointEvery: MANY,
  });
  const { signal } = new AbortController();
  const job = join(folder, "job");
  const { files } = await makeJob(run, { baseDir: folder, root: "/", signal });
  await writeJob(job, files);
  return job;
}

/** One thing that a run has told. */
export type Moment = { readonly at: number } & (
  | { readonly kind: "step"; readonly step: number }
  | { readonly kind: "lost" }
  | { readonly kind: "generation"; readonly step: number; readonly workers: number }
);

export interface RunOf {
  readonly job: string;
  readonly out: string;
  readonly workers: number;
  readonly threads: number;
  /** Default: until it is stopped. */
  readonly steps?: number;
}

/** A run in progress, and all that it has told, with the times in ms. */
export class WatchedRun {
  readonly moments: Moment[] = [];
  /** The number of parameters of the model. */
  parameters = 0;
  readonly #stop = new AbortController();
  readonly #ended: Promise<unknown>;
  #failure: Error | undefined;
  #told: () => void = () => undefined;

  constructor({ job, out, workers, threads, steps }: RunOf) {
    this.#ended = launchLocal({
      job,
      out,
      workers,
      threads,
      roots: ["/"],
      overrides: steps === undefined ? {} : { steps },
      beginning: "anew",
      onEvent: (event) => this.#hear(event),
      signal: this.#stop.signal,
    }).catch((error: unknown) => {
      this.#failure = error instanceof Error ? error : new Error(String(error));
      this.#told();
    });
  }

  /** Stops the run after its present step, and waits until it has written its files. */
  async end(): Promise<void> {
    this.#stop.abort();
    await this.finished();
  }

  async finished(): Promise<void> {
    await this.#ended;
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** The steps that are committed. */
  get steps(): number {
    return this.moments.reduce((most, told) => (told.kind === "step" ? told.step : most), 0);
  }

  /** Waits for something to be told after the moment with this index. Returns its index. */
  async next(from: number, isWanted: (moment: Moment) => boolean): Promise<number> {
    const deadline = performance.now() + PATIENCE_MS;
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      const found = this.moments.findIndex((told, index) => index >= from && isWanted(told));
      if (found >= 0) return found;
      const left = deadline - performance.now();
      if (left <= 0)
        throw new Error(`The run told nothing that was waited for in ${PATIENCE_MS} ms.`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#told = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** Waits until this many steps more are committed. Returns the index of the last. */
  async pass(from: number, steps: number): Promise<number> {
    let index = from;
    for (let i = 0; i < steps; i++) {
      index = await this.next(index + 1, ({ kind }) => kind === "step");
    }
    return index;
  }

  #hear(event: RunEvent): void {
    const at = performance.now();
    if (event.type === "started") this.parameters = event.parameters;
    if (event.type === "step") this.moments.push({ at, kind: "step", step: event.step });
    if (event.type === "membership") {
      const { about, text } = event;
      if (process.env["LOCKSTEP_BENCH_TELLS"] !== undefined) console.error(text);
      if (about === "lost") this.moments.push({ at, kind: "lost" });
      const formed = /begins after step (\d+) with workers? ([\d, and]*\d)/.exec(text);
      if (about === "generation" && formed !== null) {
        const workers = (formed[2] as string).match(/\d+/g)?.length ?? 0;
        this.moments.push({ at, kind: "generation", step: Number(formed[1]), workers });
      }
    }
    this.#told();
  }
}

/** The processes of the workers of this process's run, by age. Linux only. */
export function workerProcesses(): number[] {
  const path = `/proc/self/task/${process.pid}/children`;
  return readFileSync(path, "utf8").trim().split(/\s+/).map(Number);
}

/** The hash of the weights that a run has written. */
export async function weightsIn(out: string): Promise<string> {
  const { tensors } = await readSafetensors(join(out, "model.safetensors"));
  return weightsSha256(tensors);
}
