/**
 * What a benchmark reports, and where it goes: a table for people, one JSON line for programs, a
 * file to keep.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { join } from "node:path";
import type { Revision } from "./against.ts";

/** One measured case. `ratio` is value over peer value: above 1, more than the peer. */
export interface Row {
  readonly case: string;
  readonly value: number;
  readonly unit: string;
  readonly peer?: string;
  readonly peerValue?: number;
  readonly ratio?: number;
  /**
   * The stated goal for `ratio` (or for `value`, if there is no peer) and whether it was reached.
   */
  readonly goal?: string;
  readonly reached?: boolean;
}

export interface Result {
  readonly name: string;
  readonly date: string;
  readonly commit: string;
  readonly machine: string;
  readonly rows: readonly Row[];
  /** Peers that are not installed here. They are named, and never skipped silently. */
  readonly missing: readonly string[];
  /** What people read instead of the rows. */
  readonly text?: string;
  /** What a reader must know about the measurement, for example that others used the machine. */
  readonly note?: string;
}

export interface Benchmark {
  readonly name: string;
  /** The one question that it answers. */
  readonly question: string;
  /** Whether it can measure another revision in the same run. Default: false. */
  readonly comparesRevisions?: boolean;
  /**
   * Whether `--models`, `--ways`, `--steps`, `--cells` and `--minutes` choose what it does. Default:
   * false.
   */
  readonly takesChoice?: boolean;
  /** @param options.against another revision, which benchmarks that can measure it measure too */
  run(options: BenchmarkOptions): Promise<{ rows: Row[]; missing: string[]; text?: string }>;
}

export interface BenchmarkOptions {
  readonly against?: Revision | undefined;
  /** Regular expressions of names. Default: all. */
  readonly models?: string | undefined;
  readonly ways?: string | undefined;
  readonly steps?: number | undefined;
  /** A file of what earlier runs found, which is not measured again; new findings are added. */
  readonly cells?: string | undefined;
  /** After this time what is not done is left out. Default: it takes as long as it takes. */
  readonly minutes?: number | undefined;
}

export function machineName(): string {
  const list = cpus();
  const gib = Math.round(totalmem() / 2 ** 30);
  return `${list[0]?.model.trim() ?? "unknown"}, ${list.length} cores, ${gib} GiB, Node ${process.versions.node}`;
}

export function currentCommit(root: string): string {
  try {
    const git = (...args: string[]) =>
      execFileSync("git", args, { cwd: root, encoding: "utf8" }).trim();
    const dirty = git("status", "--porcelain", "--untracked-files=no") === "" ? "" : "+changes";
    return `${git("rev-parse", "--short", "HEAD")}${dirty}`;
  } catch {
    return "unknown";
  }
}

/** A row with its ratio to a peer's value, unless the ratio was measured by rounds. */
export function compared(row: Omit<Row, "reached">, least?: number): Row {
  if (row.peerValue === undefined) return row;
  const ratio = row.ratio ?? row.value / row.peerValue;
  return { ...row, ratio, ...(least === undefined ? {} : { reached: ratio >= least }) };
}

export function formatTable(result: Result): string {
  const missing = result.missing.map((what) => `missing: ${what}`);
  const notes = result.note === undefined ? [] : [`note: ${result.note}`];
  return [
    `${result.name} on ${result.machine}, ${result.date}, ${result.commit}`,
    result.text ?? rowLines(result),
    ...missing,
    ...notes,
  ].join("\n");
}

function rowLines(result: Result): string {
  const cells = result.rows.map((row) => [
    row.case,
    `${format(row.value)} ${row.unit}`,
    row.peer === undefined
      ? ""
      : `${row.peer}: ${row.peerValue === undefined ? "?" : format(row.peerValue)}`,
    row.ratio === undefined ? "" : `${row.ratio.toFixed(2)}x`,
    row.goal === undefined
      ? ""
      : `${row.goal}${row.reached === undefined ? "" : row.reached ? " (reached)" : " (MISSED)"}`,
  ]);
  const table = [["case", "value", "peer", "ratio", "goal"], ...cells];
  const widths = [0, 1, 2, 3, 4].map((c) =>
    Math.max(...table.map((row) => (row[c] as string).length)),
  );
  const lines = table.map((row) =>
    row
      .map((cell, c) => cell.padEnd(widths[c] as number))
      .join("  ")
      .trimEnd(),
  );
  return lines.join("\n");
}

function format(value: number): string {
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en-US");
  return value.toPrecision(3);
}

/** Keeps a result under `benchmarks/results/`. */
export function saveResult(root: string, result: Result): string {
  const folder = join(root, "benchmarks", "results");
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${result.name}-${result.date.slice(0, 10)}.json`);
  writeFileSync(path, `${JSON.stringify(result, null, 2)}\n`);
  return path;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}
