/** Small complete runs in this process, with their folders. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { FolderStore, type Manifest, type Source } from "../../src/checkpoint/index.ts";
import { arrays, text } from "../../src/data/index.ts";
import type { Device } from "../../src/engine/index.ts";
import { gpt, mlp, resnet } from "../../src/nn/index.ts";
import { adamw, cosine, sgd } from "../../src/optimizer/index.ts";
import {
  type Beginning,
  type Changeable,
  defineRun,
  openRunFolder,
  type Run,
  type TrainResult,
  train,
} from "../../src/run/index.ts";
import type { Report, RunEvent } from "../../src/telemetry/index.ts";
import { jsonlSink } from "../../src/telemetry/index.ts";
import { tensorFrom } from "../../src/tensor/index.ts";
import { type Ranks } from "../../src/train/index.ts";
import { randomNumbers } from "./random.ts";

export const WORDS = "the cat sat on the mat and the dog sat on the log; ".repeat(80);

/** A run that needs `words.txt` in the base folder, with dropout and two micro-batches. */
export const textRun = defineRun({
  name: "words",
  model: gpt({ layers: 1, width: 16, heads: 2, context: 16, dropout: 0.2 }),
  data: text("words.txt", { heldOut: 0.1 }),
  optimizer: adamw({ learningRate: 1e-2 }),
  schedule: cosine({ warmup: 2 }),
  clipNorm: 1,
  batch: 4,
  microBatches: 2,
  steps: 8,
  evaluate: { every: 3, samples: 8 },
  checkpointEvery: 3,
  sample: { prompt: "the ", tokens: 5 },
});

const IMAGES = 40;
const images = {
  image: tensorFrom("float32", [IMAGES, 1, 8, 8], randomNumbers(1, IMAGES * 64)),
  label: tensorFrom("int32", [IMAGES], randomNumbers(2, IMAGES, [0, 3]).map(Math.floor)),
};

/** A run with batch normalization, so with running statistics. */
export const imageRun = defineRun({
  name: "images",
  model: resnet({ image: [1, 8, 8], classes: 3, blocks: [1], channels: [4], stem: "small" }),
  data: arrays(images),
  optimizer: sgd({ learningRate: 0.05, momentum: 0.9 }),
  batch: 8,
  microBatches: 2,
  steps: 6,
});

/** A run as simple as possible: nothing held out, no text. */
export const plainRun = defineRun({
  name: "plain",
  model: mlp({ inputs: [1, 8, 8], hidden: [4], outputs: 3 }),
  data: arrays(images, { heldOut: 0 }),
  optimizer: adamw({ learningRate: 1e-2 }),
  batch: 8,
  steps: 4,
});

export interface Trial {
  readonly engine: Device;
  /** The run's folder, which also has its data. */
  readonly folder: string;
  readonly out?: string;
  readonly beginning?: Beginning;
  /** The options that may change. */
  readonly changes?: readonly Changeable[];
  /** Asks for a stop as soon as it returns true. */
  readonly stopAt?: (event: RunEvent) => boolean;
  readonly freeMemory?: () => number;
  /** The other workers, which try the same run. */
  readonly ranks?: Ranks;
}

export interface Tried {
  readonly result: TrainResult;
  readonly events: readonly RunEvent[];
}

export async function tryRun(run: Run, trial: Trial): Promise<Tried> {
  const { engine, folder, out = join(folder, "out"), beginning = "new" } = trial;
  const controller = new AbortController();
  const opened = await openRunFolder(out, run.checkpoints);
  let clock = 0;
  const metrics = jsonlSink(opened.file("metrics.jsonl"), { now: () => clock });
  const events: RunEvent[] = [];
  try {
    const result = await train(run, {
      engine,
      folder: opened,
      baseDir: folder,
      beginning,
      changes: trial.changes,
      ranks: trial.ranks,
      freeMemory: trial.freeMemory,
      signal: controller.signal,
      now: () => (clock += 10),
      onEvent: (event) => {
        events.push(event);
        metrics.sink(event);
        if (trial.stopAt?.(event) === true) controller.abort(new Error("enough"));
      },
    });
    return { result, events };
  } finally {
    metrics.close();
  }
}

export function reportOf(out: string): Report {
  return JSON.parse(readFileSync(join(out, "report.json"), "utf8")) as Report;
}

/** The steps of a run's checkpoints, ascending. */
export function checkpointsOf(out: string): number[] {
  const folder = join(out, "checkpoints");
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .flatMap((name) => /^step-(\d+)$/.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
}

/** The manifest of a run's newest checkpoint. */
export function newestOf(out: string): Promise<Manifest> {
  return new FolderStore(join(out, "checkpoints")).manifest(checkpointsOf(out).at(-1) ?? 0);
}

/** A checkpoint of a run, to be read. */
export async function sourceIn(out: string, step: number): Promise<Source> {
  const store = new FolderStore(join(out, "checkpoints"));
  return store.source(step, await store.manifest(step));
}

/** The shards of a run's newest checkpoint. */
export function shardsOf(out: string): string[] {
  const folder = join(out, "checkpoints", `step-${checkpointsOf(out).at(-1)}`);
  const files = readdirSync(folder).filter((name) => name.endsWith(".safetensors"));
  return files.sort().map((name) => join(folder, name));
}

export interface MetricsLine {
  readonly type: string;
  readonly step?: number;
  readonly loss?: number;
}

export function metricsOf(out: string): MetricsLine[] {
  const lines = readFileSync(join(out, "metrics.jsonl"), "utf8").split("\n");
  return lines.slice(0, -1).map((line) => JSON.parse(line) as MetricsLine);
}

const SHARED_RUN = `
import { adamw, defineRun, gpt, text } from "lockstep";
export default defineRun({
  model: gpt({ layers: 2, width: 16, heads: 2, context: 16, dropout: 0.1 }),
  data: text("words.txt", { heldOut: 0.1 }),
  optimizer: adamw({ learningRate: 1e-2 }),
  clipNorm: 1, batch: 8, microBatches: 4, steps: 12,
  evaluate: { every: 5, samples: 10 }, checkpointEvery: 4,
  sample: { prompt: "the ", tokens: 5 },
  ...SHARING
});`;

/** A run file of a small GPT with all that a run does. @param sharing options of parallelism */
export function sharedRun(sharing: object): string {
  return SHARED_RUN.replace("SHARING", JSON.stringify(sharing));
}
