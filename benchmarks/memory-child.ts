/**
 * One worker that measures the memory of whole training steps of a GPT, and prints one JSON object.
 * Started by `memory.ts`.
 */
import { readFileSync } from "node:fs";
import { Group } from "../src/collectives/index.ts";
import { createOrtEngine } from "../src/engine/index.ts";
import type { ParallelOptions } from "../src/parallel/index.ts";
import { residentMemory, totalOf } from "../src/program/index.ts";
import { byteLength } from "../src/tensor/index.ts";
import { createTrainer } from "../src/train/index.ts";
import { joinSharedMemory } from "../src/transport/index.ts";
import type { GptSizes } from "./peers.ts";
import { median } from "./report.ts";
import { timeSteps, trainedGpt } from "./steps.ts";

export interface MemoryRequest {
  readonly sizes: GptSizes;
  readonly microBatches: number;
  readonly repeats: number;
  /** How workers share the state. */
  readonly sharing: ParallelOptions;
  /** Whether memory is looked at; a measurement of speed alone does without. */
  readonly looks: boolean;
  /** A folder of a disk, for what is offloaded. */
  readonly folder: string;
  readonly group: { readonly name: string; readonly rank: number; readonly size: number };
}

export interface MemoryMeasurement {
  /** The most that there was. */
  readonly peakBytes: number;
  /** The same memory as the plan predicts it. */
  readonly planned: Readonly<Record<string, number>>;
  readonly plannedBytes: number;
  readonly parameterBytes: number;
  /** The median seconds of one step of the whole batch. */
  readonly seconds: number;
}

/** A look walks through all pages of the process, and holds up what it does meanwhile. */
const LOOK_MS = 100;

console.log(JSON.stringify(await measure(JSON.parse(process.argv[2] ?? "{}") as MemoryRequest)));

async function measure(request: MemoryRequest): Promise<MemoryMeasurement> {
  const { sizes, microBatches, repeats, sharing, looks, folder, group: place } = request;
  const engine = createOrtEngine({ threads: 1 });
  const group = new Group({ engine, transport: await joinSharedMemory(place) });
  const trained = trainedGpt(sizes, microBatches);
  let peak = 0;
  const look = () => {
    if (looks) peak = Math.max(peak, residentBytes());
  };
  const timer = setInterval(look, LOOK_MS);
  const trainer = await createTrainer({
    engine,
    ...trained,
    ranks: { group, adapt: false },
    ...sharing,
    offloadFolder: folder,
  });
  // A first step touches all that the others do.
  await timeSteps(trainer, sizes, 1);
  look();
  clearInterval(timer);
  const times = await timeSteps(trainer, sizes, repeats);
  look();
  const planned = residentMemory(trainer.plan);
  const parameterBytes = trained.model.parameters.reduce(
    (sum, { type }) => sum + byteLength(type),
    0,
  );
  // Shared memory is divided among the processes that have it mapped, so nobody leaves before all
  // have read it.
  await group.barrier();
  trainer.close();
  await group.close();
  await engine.close();
  return {
    peakBytes: peak,
    planned: Object.fromEntries(planned),
    plannedBytes: totalOf(planned),
    parameterBytes,
    seconds: median(times),
  };
}

/**
 * Returns the private memory and this process's part of the shared memory: a page that four
 * processes have mapped counts a quarter for each. Workers are alike, so this is what each of them
 * takes from the machine. Linux only.
 */
function residentBytes(): number {
  const text = readFileSync("/proc/self/smaps_rollup", "utf8");
  const field = (name: string) => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(text)?.[1] ?? 0);
  return (field("Pss_Anon") + field("Pss_Shmem")) * 1024;
}
