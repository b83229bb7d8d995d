/**
 * One process that measures whole training steps of a GPT, and prints one JSON object. Started by
 * `step.ts`.
 */
import { readFileSync } from "node:fs";
import { createOrtEngine } from "../src/engine/index.ts";
import type { Graph } from "../src/graph/index.ts";
import { gpt } from "../src/nn/index.ts";
import { adamw } from "../src/optimizer/index.ts";
import { GRADIENT, peakOfIntermediates } from "../src/plan/index.ts";
import { planWaves } from "../src/program/index.ts";
import { byteLength, tensorFrom } from "../src/tensor/index.ts";
import { createTrainer } from "../src/train/create.ts";
import type { GptSizes } from "./peers.ts";
import { median } from "./report.ts";

export interface StepMeasurement {
  readonly tokensPerSecond: number;
  /** Growth of the process's resident memory from before the first allocation to its peak. */
  readonly peakBytes: number;
  /**
   * The bytes of parameters, gradients (also those of running micro-batches), optimizer state, and
   * the most that intermediate values take at once.
   */
  readonly neededBytes: number;
  /** Seconds from the start of the process to the start of the first step, and to its end. */
  readonly startSeconds: number;
  readonly firstStepSeconds: number;
}

interface Request {
  readonly sizes: GptSizes;
  readonly threads: number;
  readonly repeats: number;
  /** Milliseconds since 1970 at which the process was started. */
  readonly started: number;
}

const request = JSON.parse(process.argv[2] ?? "{}") as Request;
console.log(JSON.stringify(await measure(request)));

async function measure({ sizes, threads, repeats, started }: Request): Promise<StepMeasurement> {
  const { layers, width, heads, context, batch, vocabulary } = sizes;
  const definition = gpt({ layers, width, heads, context, vocabulary, tied: false });
  const engine = createOrtEngine({ threads });
  const before = residentBytes("VmRSS");
  // More micro-batches than threads take half of the activations at a time, at the same speed or
  // better.
  const microBatches = 4;
  const model = definition.build({ batch: batch / microBatches, mode: "train" });
  const optimizer = adamw({});
  const trainer = await createTrainer({ engine, model, optimizer, microBatches, clip: 1, seed: 1 });
  const fill = randomTokens(batch * context, vocabulary);
  const positions = { start: 0, end: batch };
  const startSeconds = (Date.now() - started) / 1000;
  await trainer.step({ positions, fill });
  const firstStepSeconds = (Date.now() - started) / 1000;
  await trainer.step({ positions, fill });
  const times: number[] = [];
  for (let i = 0; i < repeats; i++) {
    const start = performance.now();
    await trainer.step({ positions, fill });
    times.push((performance.now() - start) / 1000);
  }
  const parameters = model.parameters.reduce((sum, { type }) => sum + byteLength(type), 0);
  const whole = [{ first: 0, count: microBatches }];
  const perWave = Math.min(threads, microBatches);
  const gradientBuffers = planWaves(whole, { perWave, isInPlace: true }).accumulators;
  const result = {
    tokensPerSecond: (batch * context) / median(times),
    peakBytes: residentBytes("VmHWM") - before,
    neededBytes:
      3 * parameters +
      gradientBuffers * parameters +
      Math.min(threads, microBatches) *
        peakOfIntermediates(trainer.planned.step.graphs.get(GRADIENT) as Graph),
    startSeconds,
    firstStepSeconds,
  };
  trainer.close();
  await engine.close();
  return result;
}

/** Fixed pseudo-random ids, which are the same for every run. */
function randomTokens(count: number, vocabulary: number) {
  const numbers = (seed: number) =>
    Array.from({ length: count }, (_, i) => ((i * 7919 + seed * 104729) % 100_003) % vocabulary);
  const [ids, targets] = [numbers(1), numbers(2)].map((list) => tensorFrom("int32", [count], list));
  return (into: Readonly<Record<string, { readonly bytes: Uint8Array }>>): void => {
    into["ids"]?.bytes.set(ids?.bytes ?? []);
    into["targets"]?.bytes.set(targets?.bytes ?? []);
  };
}

function residentBytes(field: "VmRSS" | "VmHWM"): number {
  const found = new RegExp(`${field}:\\s+(\\d+) kB`).exec(
    readFileSync("/proc/self/status", "utf8"),
  );
  return Number(found?.[1] ?? 0) * 1024;
}
