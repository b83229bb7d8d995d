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
import type { Benchmark, Row } from "./report.ts";
import { type Apart, type Cell, GOAL, judge, short, type Verdict } from "./same-cells.ts";
import type { ModelRequest } from "./same-child.ts";
import { MODELS } from "./same-models.ts";
import { nameOf, WAYS, type Way } from "./same-ways.ts";

const entry = join(dirname(fileURLToPath(import.meta.url)), "same-child.js");
const STEPS = 50;
/** A cell that takes longer has failed. */
const PATIENCE_MS = 300_000;
/** Models that are compared at a time, each in a process of its own with one thread. */
const AT_ONCE = availableParallelism();

interface Column {
  readonly model: string;
  readonly innocent: Apart;
  /** One for each way. */
  readonly cells: readonly Cell[];
}

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
      const verdicts = columns.map(({ cells, innocent }) =>
        cells.map((cell) => judge(cell, innocent)),
      );
      return {
        rows: rowsOf(columns, ways, verdicts),
        missing: sentencesOf(columns, ways, verdicts, "refused"),
        text: textOf(columns, ways, verdicts),
      };
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
};

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
    if (innocent === undefined) throw new Error(`${model} by one process: ${sentence}`);
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

type Verdicts = readonly (readonly Verdict[])[];

function rowsOf(columns: readonly Column[], ways: readonly Way[], verdicts: Verdicts): Row[] {
  return columns.flatMap(({ model, innocent, cells }, at) =>
    cells.flatMap((cell, row): Row[] => {
      const verdict = verdicts[at]?.[row];
      if (verdict === undefined || verdict.is === "refused") return [];
      const { is, why } = verdict;
      const name = `${model}: ${nameOf(ways[row] as Way)}`;
      const {
        losses = Number.NaN,
        first = Number.NaN,
        later = Number.NaN,
      } = cell.kind === "ran" ? cell.apart : {};
      const gradients = `gradients ${short(first)}, later ${short(later)}`;
      const isBits = cell.kind === "ran" && cell.root === "one process";
      return [
        {
          case: name,
          value: losses,
          unit: `of losses; ${gradients}; ${is}${why === undefined ? "" : `: ${why}`}`,
          peer: "one process after innocent changes",
          peerValue: innocent.losses,
          goal: isBits ? "bits" : `losses ${GOAL.losses}, gradients ${GOAL.gradients}`,
          reached: is === "bits" || is === "near" || is === "whole",
        },
      ];
    }),
  );
}

/** Models and ways by sentence, so that one that says the same of many is said once. */
function sentencesOf(
  columns: readonly Column[],
  ways: readonly Way[],
  verdicts: Verdicts,
  wanted: Verdict["is"],
): string[] {
  const bySentence = new Map<string, string[]>();
  for (const [at, { model }] of columns.entries()) {
    for (const [row, { is, why = "" }] of (verdicts[at] ?? []).entries()) {
      if (is !== wanted) continue;
      const sentence = why.split("\n")[0] as string;
      const names = bySentence.get(sentence) ?? [];
      bySentence.set(sentence, names);
      names.push(`${model}: ${nameOf(ways[row] as Way)}`);
    }
  }
  return [...bySentence].map(([sentence, names]) => {
    const more = names.length > 1 ? ` and ${names.length - 1} more` : "";
    return `${names[0]}${more}: ${wanted}: ${sentence}`;
  });
}

/** The matrix: a row for each way, a column for each model. */
function textOf(columns: readonly Column[], ways: readonly Way[], verdicts: Verdicts): string {
  const letters = columns.map((_, at) => String.fromCharCode("A".charCodeAt(0) + at));
  const rows = ways.map((way, row) => [
    nameOf(way),
    ...columns.map(({ cells }, at) => cellText(cells[row], verdicts[at]?.[row])),
  ]);
  const innocent = columns.map(({ innocent: own }) => pair(own));
  const table = [["", ...letters], ["(innocent changes)", ...innocent], ...rows];
  const widths = ["", ...letters].map((_, at) =>
    Math.max(...table.map((cells) => (cells[at] as string).length)),
  );
  const lines = table.map((cells) =>
    cells
      .map((cell, at) => cell.padEnd(widths[at] as number))
      .join("  ")
      .trimEnd(),
  );
  const count = (is: Verdict["is"]) => verdicts.flat().filter((own) => own.is === is).length;
  return [
    ...columns.map(({ model }, at) => `${letters[at]}: ${model}`),
    "",
    "Differences from one process: of losses, and the larger one of gradients at the first and the last weights.",
    `bits: none; whole: the model is too small to be divided; -: refused; ~: above the goal (${GOAL.losses}, ${GOAL.gradients}), as innocent changes are; !: wrong.`,
    "",
    ...lines,
    "",
    `${count("bits")} cells have the bits of one process, ${count("near")} are near it, ${count("rounding")} are as far as innocent changes, ${count("whole")} divide nothing, ${count("refused")} are refused, ${count("wrong")} are wrong.`,
    ...sentencesOf(columns, ways, verdicts, "wrong"),
    ...sentencesOf(columns, ways, verdicts, "rounding"),
  ].join("\n");
}

function cellText(cell: Cell | undefined, verdict: Verdict | undefined): string {
  if (cell === undefined || verdict === undefined) return "?";
  if (verdict.is === "refused") return "-";
  if (verdict.is === "bits" || verdict.is === "whole") return verdict.is;
  const mark = { near: "", rounding: "~", wrong: "!" }[verdict.is];
  return `${mark}${cell.kind === "ran" ? pair(cell.apart) : "failed"}`;
}

function pair({ losses, first, later }: Apart): string {
  return `${short(losses)} ${short(Math.max(first, later))}`;
}
