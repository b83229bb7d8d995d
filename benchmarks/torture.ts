/**
 * Does a run of 4 workers that has a fault every two seconds end with the weights of an undisturbed
 * run of one worker, and without help?
 */
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type Benchmark, median, type Row } from "./report.ts";

const command = join(dirname(fileURLToPath(import.meta.url)), "../../dist/main.js");
const [STEPS, WORKERS, EVERY, LEAST_FAULTS] = [300, 4, "2s", 30];
const KINDS = "kill,stop,segfault,slow-worker,preempt";
const PATIENCE_MS = 400_000;
/** How each run shares its state, and the seed of its faults. */
const RUNS = [
  ["data", ["--parallel", `data=${WORKERS}`], 1],
  ["ZeRO-1", ["--zero", "1"], 2],
  ["ZeRO-3", ["--zero", "3"], 3],
  [
    "ZeRO-3, and a fifth worker that stands by",
    ["--zero", "3", "--workers", `${WORKERS + 1}`, "--max-workers", `${WORKERS}`],
    3,
  ],
] as const;

export const torture: Benchmark = {
  name: "torture",
  question: `Do ${STEPS} steps under a fault every ${EVERY} end with the weights of a run without faults?`,
  run: async () => {
    const folder = mkdtempSync(join(tmpdir(), "lockstep-bench-"));
    try {
      return { rows: await measureAll(folder), missing: [] };
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
};

const RUN = `
import { adamw, cosine, defineRun, gpt, text } from "lockstep";
export default defineRun({
  model: gpt({ layers: 2, width: 256, heads: 4, context: 128, dropout: 0.1 }),
  data: text("words.txt", { heldOut: 0.1 }),
  optimizer: adamw({ learningRate: 1e-3 }), schedule: cosine({ warmup: 20, final: 0.1 }),
  clipNorm: 1, batch: 8, microBatches: 8, steps: ${STEPS}, checkpointEvery: 50,
});`;

interface Report {
  readonly weightsSha256: string;
  readonly history: Readonly<
    Record<"workersLost" | "workersJoined" | "generations" | "samplesRepeated", number>
  > & { readonly recoverySeconds: readonly number[] };
}

async function measureAll(folder: string): Promise<Row[]> {
  const words = "the cat sat on the mat and the dog sat on the log; ".repeat(4000);
  writeFileSync(join(folder, "words.txt"), words);
  writeFileSync(join(folder, "run.ts"), RUN);
  const one = await trained(folder, "one", ["train", "run.ts", "--workers", "1"]);
  const rows: Row[] = [];
  let runs = 0;
  for (const [name, words, seed] of RUNS) rows.push(...(await tortured(name, words, seed)));
  return rows;

  async function tortured(name: string, sharing: readonly string[], seed: number): Promise<Row[]> {
    const faults = ["--every", EVERY, "--kinds", KINDS, "--chaos-seed", `${seed}`];
    const words = ["chaos", "run.ts", "--workers", `${WORKERS}`, ...sharing, ...faults];
    const { report, out, error } = await trained(folder, `${++runs}`, words);
    const row = (
      what: string,
      value: number,
      unit: string,
      goal?: string,
      reached = false,
    ): Row => ({
      case: `${name} (--chaos-seed ${seed}): ${what}`,
      value,
      unit,
      ...(goal === undefined ? {} : { goal, reached }),
    });
    if (report === undefined) console.error(`${name}: the run ended: ${error}`);
    const isSame = report !== undefined && report.weightsSha256 === one.report?.weightsSha256;
    const rows = [row("the bits of 1 worker", Number(isSame), "(1: equal)", "1", isSame)];
    if (report === undefined) return rows;
    const { history } = report;
    const done = readFileSync(join(out, "chaos.jsonl"), "utf8").trim().split("\n").length;
    const repeated = history.samplesRepeated;
    return [
      ...rows,
      row("faults", done, "", `at least ${LEAST_FAULTS}`, done >= LEAST_FAULTS),
      row("samples repeated", repeated, "", "0", repeated === 0),
      row("workers lost", history.workersLost, ""),
      row("workers joined", history.workersJoined, ""),
      row("from a loss to the next step, median", median(history.recoverySeconds), "s"),
    ];
  }
}

async function trained(folder: string, name: string, words: readonly string[]) {
  const out = join(folder, name);
  try {
    const given = [command, ...words, "--threads", "1", "--out", out];
    await promisify(execFile)(process.execPath, given, {
      cwd: folder,
      timeout: PATIENCE_MS,
      maxBuffer: 2 ** 26,
    });
  } catch (error) {
    return { out, report: undefined, error: (error as { stderr?: string }).stderr };
  }
  const report = JSON.parse(readFileSync(join(out, "report.json"), "utf8")) as Report;
  return { out, report, error: undefined };
}
