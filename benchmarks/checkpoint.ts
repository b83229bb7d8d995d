/**
 * What do checkpoints cost a run, and how fast do they go to the disk? A run with a checkpoint every
 * 20 steps against one without, and a shard against `dd` with the same bytes.
 */
import { execFile } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { setImmediate as turn } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { FolderStore, type Manifest } from "../src/checkpoint/index.ts";
import { allocateMemory, type Memory } from "../src/memory/index.ts";
import { type Benchmark, compared, median, type Row } from "./report.ts";
import { ratioOf, takeTurns } from "./rounds.ts";

const here = dirname(fileURLToPath(import.meta.url));
const command = join(here, "../../dist/main.js");
/** Three checkpoints of the model of the step benchmark, each of 130 MB. */
const STEPS = 62;
const EVERY = 20;
const ROUNDS = 3;
const SAVES = 5;
const SHARD_BYTES = 130_000_000;
const PIECE_BYTES = 2 ** 24;

export const checkpoint: Benchmark = {
  name: "checkpoint",
  question: "seconds of training with and without checkpoints, and MB/s of a save against dd",
  run: async () => ({ rows: [...(await costOfARun()), ...(await speedOfASave())], missing: [] }),
};

const RUN = `
import { adamw, defineRun, gpt, text } from "lockstep";
export default defineRun({
  model: gpt({ layers: 6, width: 384, heads: 6, context: 256 }),
  data: text("words.txt", { heldOut: 0 }),
  optimizer: adamw({ learningRate: 1e-4 }),
  clipNorm: 1, batch: 8, microBatches: 2, steps: ${STEPS}, checkpointEvery: EVERY,
});`;

async function costOfARun(): Promise<Row[]> {
  // Beside the build: on the disk where people work, not in memory.
  const folder = mkdtempSync(join(here, "checkpoint-"));
  try {
    const words = "the cat sat on the mat and the dog sat on the log; ".repeat(4000);
    writeFileSync(join(folder, "words.txt"), words);
    const { often, never } = await takeTurns(
      { often: () => secondsOf(folder, EVERY), never: () => secondsOf(folder, STEPS) },
      ROUNDS,
    );
    const row = {
      case: `${STEPS - 1} steps on 2 workers of 1 thread, a checkpoint every ${EVERY}`,
      value: median(often),
      unit: "s",
      peer: "without",
      peerValue: median(never),
      ratio: ratioOf(often, never),
      goal: "at most 1.02x",
    };
    return [{ ...row, reached: row.ratio <= 1.02 }];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Returns the seconds from the end of the first step to the end of the last. */
async function secondsOf(folder: string, every: number): Promise<number> {
  writeFileSync(join(folder, "run.ts"), RUN.replace("EVERY", String(every)));
  const words = ["train", "run.ts", "--workers", "2", "--threads", "1", "--out", "out", "--anew"];
  await promisify(execFile)(process.execPath, [command, ...words], { cwd: folder });
  const lines = readFileSync(join(folder, "out/metrics.jsonl"), "utf8").trim().split("\n");
  const steps = lines
    .map((line) => JSON.parse(line) as { readonly type: string; readonly time: number })
    .filter(({ type }) => type === "step");
  return ((steps.at(-1)?.time ?? 0) - (steps[0]?.time ?? 0)) / 1000;
}

async function speedOfASave(): Promise<Row[]> {
  const folder = mkdtempSync(join(here, "checkpoint-"));
  const store = new FolderStore(folder);
  const state = allocateMemory(SHARD_BYTES);
  randomFillSync(state.bytes);
  try {
    const waits: number[] = [];
    const copies: number[] = [];
    const { save, dd } = await takeTurns(
      {
        save: async () => {
          const [copy, ms] = await copied(state);
          copies.push(ms);
          const waited = monitorEventLoopDelay({ resolution: 1 });
          waited.enable();
          const rate = await rateOf(() => saveWhole(store, copy));
          waited.disable();
          waits.push(waited.percentile(99) / 1e6);
          copy.close();
          await store.remove(1);
          return rate;
        },
        dd: () => ddRate(folder),
      },
      SAVES,
    );
    const row = {
      case: "a checkpoint of 130 MB, hashed, flushed and published",
      value: median(save),
      unit: "MB/s",
    };
    const peer = { peer: "dd conv=fsync", peerValue: median(dd), ratio: ratioOf(save, dd) };
    return [
      compared({ ...row, ...peer, goal: "0.8x" }, 0.8),
      { case: "the copy of 130 MB, while training waits", value: median(copies), unit: "ms" },
      { case: "wait of the event loop meanwhile, 99%", value: median(waits), unit: "ms" },
    ];
  } finally {
    state.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** From the copy to a checkpoint that is there. Each save makes new files, as `dd` does. */
async function saveWhole(store: FolderStore, { bytes, byteLength }: Memory): Promise<void> {
  const draft = await store.begin(1, [0]);
  await store.write(draft, 0, { byteLength, pieces: [bytes] });
  const shards = await store.gather(draft, [0]);
  await store.publish(draft, { ...SAID, shards });
}

/** What a manifest says besides its shard. */
const SAID: Omit<Manifest, "shards"> = {
  lockstep: "0",
  step: 1,
  position: 0,
  seed: 1,
  seconds: 0,
  trainLoss: null,
  diverged: false,
  identity: {},
  identitySha256: "0".repeat(64),
  tensors: {},
};

async function copied(state: Memory): Promise<[Memory, number]> {
  const began = performance.now();
  const copy = allocateMemory(state.byteLength);
  for (let at = 0; at < state.byteLength; at += PIECE_BYTES) {
    const length = Math.min(PIECE_BYTES, state.byteLength - at);
    copy.view(at, length).set(state.view(at, length));
    await turn();
  }
  return [copy, performance.now() - began];
}

async function ddRate(folder: string): Promise<number> {
  const [from, to] = [join(folder, "from"), join(folder, "to")];
  // It is read from memory, and written into a new file.
  writeFileSync(from, randomFillSync(new Uint8Array(SHARD_BYTES)));
  rmSync(to, { force: true });
  const words = [`if=${from}`, `of=${to}`, "bs=1M", "conv=fsync"];
  return rateOf(() => promisify(execFile)("dd", words));
}

/** In MB/s. */
async function rateOf(write: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await write();
  return SHARD_BYTES / 1000 / (performance.now() - began);
}
