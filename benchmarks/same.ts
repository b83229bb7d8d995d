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
import type { Benchmark } from "./report.ts";
import type { Apart, Cell } from "./same-cells.ts";
import type { ModelRequest } from "./same-child.ts";
import { MODELS } from "./same-models.ts";
import { type Column, reportOf } from "./same-report.ts";
import { nameOf, WAYS, type Way } from "./same-ways.ts";

const entry = join(dirname(fileURLToPath(import.meta.url)), "same-child.js");
const STEPS = 50;
/** A cell that takes longer has failed. */
const PATIENCE_MS = 300_000;
/** Models that are compared at a time, each in a process of its own with one thread. */
const AT_ONCE = availableParallelism();

export const same: Benchmark = {
  name: "same",
  question: `Do ${STEPS} steps on 1 to 8 ranks follow those of one process, with every model and in every way to share a step?`,
  takesChoice: true,
  run: async ({ models: wanted = "", ways: wantedWays = "", steps = STEPS }) => {
    const models = MODELS.map(({ name }) => name).filter((name) => new RegExp(wanted).test(name));
    const ways = WAYS.filter((way) => new RegExp(wantedWays).test(nameOf(way)));
    const folder = mkdtempSync(join(onDisk(), "lockstep-same-"));
    try {
      const columns: Column[] = [];
      const left = models.entries();
      const work = async () => {
        for (const [at, model] of left) columns[at] = await compared(model, ways, steps, folder);
      };
      await Promise.all(Array.from({ length: AT_ONCE }, work));
      return reportOf(columns, ways);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
};

const UNKNOWN: Apart = { losses: 0, first: 0, later: 0, parameter: "" };

/** A child that dies or stands still has failed in the way that it was at; another one goes on. */
async function compared(
  model: string,
  ways: readonly Way[],
  steps: number,
  folder: string,
): Promise<Column> {
  let innocent: Apart | undefined;
  const cells: Cell[] = [];
  while (innocent === undefined || cells.length < ways.length) {
    const rest = ways.slice(cells.length);
    const isFirst = innocent === undefined;
    const request: ModelRequest = { model, ways: rest, steps, folder, innocent: isFirst };
    const sentence = await listen(request, (line) => {
      if (innocent === undefined) innocent = JSON.parse(line) as Apart;
      else cells.push(JSON.parse(line) as Cell);
      const way = ways[cells.length - 1];
      console.error(`${model}: ${way === undefined ? "innocent changes" : nameOf(way)}: ${line}`);
    });
    if (innocent === undefined) {
      const failed = { kind: "failed", sentence: `One process alone: ${sentence}` } as const;
      return { model, innocent: UNKNOWN, cells: ways.map(() => failed) };
    }
    if (cells.length < ways.length) cells.push({ kind: "failed", sentence });
  }
  return { model, innocent, cells };
}

/** Resolves when the child has ended, with what it said last. */
function listen(request: ModelRequest, hear: (line: string) => void): Promise<string> {
  const child = spawn(process.execPath, [entry, JSON.stringify(request)], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  let isLate = false;
  const giveUp = () => {
    isLate = true;
    child.kill("SIGKILL");
  };
  let timer = setTimeout(giveUp, PATIENCE_MS);
  child.stderr.on("data", (text: Buffer) => (said = `${said}${text.toString()}`.slice(-2000)));
  createInterface({ input: child.stdout }).on("line", (line) => {
    clearTimeout(timer);
    timer = setTimeout(giveUp, PATIENCE_MS);
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
