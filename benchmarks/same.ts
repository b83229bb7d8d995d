/**
 * Does each way to share a step train each model as one process does? The largest relative
 * differences of losses and gradients, or bits.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { onDisk } from "../test/support/folder.ts";
import { type Benchmark, currentCommit } from "./report.ts";
import type { Apart, Cell } from "./same-cells.ts";
import type { ModelRequest } from "./same-child.ts";
import { KeptCells } from "./same-kept.ts";
import { MODELS } from "./same-models.ts";
import { type Column, reportOf } from "./same-report.ts";
import { nameOf, WAYS, type Way } from "./same-ways.ts";

const entry = join(dirname(fileURLToPath(import.meta.url)), "same-child.js");
const root = join(dirname(entry), "../..");
const STEPS = 50;
/** A cell that takes longer has failed. */
const PATIENCE_MS = 300_000;
/** Models that are compared at a time, each in a process of its own with one thread. */
const AT_ONCE = availableParallelism();

export const same: Benchmark = {
  name: "same",
  question: `Do ${STEPS} steps on 1 to 8 ranks follow those of one process, with every model and in every way to share a step?`,
  takesChoice: true,
  run: async (options) => {
    const { models: wanted = "", ways: wantedWays = "", steps = STEPS } = options;
    const models = MODELS.map(({ name }) => name).filter((name) => new RegExp(wanted).test(name));
    const ways = WAYS.filter((way) => new RegExp(wantedWays).test(nameOf(way)));
    const kept = new KeptCells(options.cells, currentCommit(root), steps);
    const endAt = performance.now() + (options.minutes ?? Number.POSITIVE_INFINITY) * 60_000;
    const folder = mkdtempSync(join(onDisk(), "lockstep-same-"));
    try {
      const left = models.values();
      const work = async () => {
        for (const model of left) await compare(model, { ways, steps, folder, kept, endAt });
      };
      await Promise.all(Array.from({ length: AT_ONCE }, work));
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
    const columns = models.map(
      (model): Column => ({
        model,
        innocent: kept.innocentOf(model) ?? UNKNOWN,
        cells: ways.map((way) => kept.cellOf(model, nameOf(way))),
      }),
    );
    const { text, ...rest } = reportOf(columns, ways);
    return { ...rest, text: `${text}\nThe cells are of ${kept.commits.join(", ")}.` };
  },
};

const UNKNOWN: Apart = { losses: 0, first: 0, later: 0, parameter: "" };

interface Comparing {
  readonly ways: readonly Way[];
  readonly steps: number;
  readonly folder: string;
  readonly kept: KeptCells;
  /** When no cell is waited for any more, in milliseconds of `performance.now()`. */
  readonly endAt: number;
}

/** A child that dies or stands still has failed in the way that it was at; another one goes on. */
async function compare(
  model: string,
  { ways, steps, folder, kept, endAt }: Comparing,
): Promise<void> {
  const tell = (what: string, found: unknown) =>
    console.error(`${model}: ${what}: ${JSON.stringify(found)}`);
  const leftWays = () => ways.filter((way) => kept.cellOf(model, nameOf(way)) === undefined);
  const add = (way: Way, cell: Cell) => {
    kept.addCell(model, nameOf(way), cell);
    tell(nameOf(way), cell);
  };
  while (leftWays().length > 0 && performance.now() < endAt) {
    const innocent = kept.innocentOf(model) === undefined;
    const request: ModelRequest = { model, ways: leftWays(), steps, folder, innocent };
    const sentence = await listen(request, endAt, (line) => {
      const [way] = leftWays();
      if (kept.innocentOf(model) !== undefined) add(way as Way, JSON.parse(line) as Cell);
      else {
        kept.addInnocent(model, JSON.parse(line) as Apart);
        tell("innocent changes", kept.innocentOf(model));
      }
    });
    if (performance.now() >= endAt) return;
    if (kept.innocentOf(model) === undefined) {
      const failed: Cell = { kind: "failed", sentence: `One process alone: ${sentence}` };
      for (const way of leftWays()) add(way, failed);
    }
    const [way] = leftWays();
    if (way !== undefined) add(way, { kind: "failed", sentence });
  }
}

/** Resolves when the child has ended, with what it said last. */
function listen(
  request: ModelRequest,
  endAt: number,
  hear: (line: string) => void,
): Promise<string> {
  const child = spawn(process.execPath, [entry, JSON.stringify(request)], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  let isLate = false;
  const giveUp = () => {
    isLate = true;
    child.kill("SIGKILL");
  };
  const wait = () => setTimeout(giveUp, Math.min(PATIENCE_MS, endAt - performance.now()));
  let timer = wait();
  child.stderr.on("data", (text: Buffer) => (said = `${said}${text.toString()}`.slice(-2000)));
  createInterface({ input: child.stdout }).on("line", (line) => {
    clearTimeout(timer);
    timer = wait();
    hear(line);
  });
  return new Promise((resolve) => {
    child.on("close", (code) => {
      clearTimeout(timer);
      const end = isLate ? `took more than ${PATIENCE_MS / 1000} s` : `ended with ${code}`;
      resolve(`the process ${end}. ${said}`.trim());
    });
  });
}
