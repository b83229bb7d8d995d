/** Runs the command as people run it: another process, in a folder without node_modules. */

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const main = join(dirname(fileURLToPath(import.meta.url)), "../../../dist/main.js");

export interface Ended {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Setting {
  readonly cwd: string;
  readonly env?: Readonly<Record<string, string>>;
  /** The words before the command: `["sh", "-c", …]`. */
  readonly through?: readonly string[];
  /** Whether it leads a group of processes, which contains all that it starts. */
  readonly leads?: boolean;
  /** Called at each piece of stdout with all of stdout so far. */
  readonly onOutput?: (stdout: string, child: ChildProcess) => void;
}

export function lockstep(words: readonly string[], setting: Setting): Promise<Ended> {
  const [program = "", ...rest] = [...(setting.through ?? []), process.execPath, main, ...words];
  const child = spawn(program, rest, {
    cwd: setting.cwd,
    env: { ...process.env, ...setting.env },
    stdio: ["ignore", "pipe", "pipe"],
    detached: setting.leads === true,
  });
  let [stdout, stderr] = ["", ""];
  child.stdout?.setEncoding("utf8").on("data", (piece: string) => {
    stdout += piece;
    setting.onOutput?.(stdout, child);
  });
  child.stderr?.setEncoding("utf8").on("data", (piece: string) => {
    stderr += piece;
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (status, signal) => resolve({ status, signal, stdout, stderr }));
  });
}

const WORDS = "the cat sat on the mat and the dog sat on the log; ".repeat(60);

/**
 * Returns the files of a folder to begin with: text, and a run file that trains on it in a second.
 * `fields` replaces fields of the run.
 */
export function runFiles(
  fields: Readonly<Record<string, string>> = {},
): Readonly<Record<string, string>> {
  const run = {
    name: '"tiny"',
    model: "gpt({ layers: 1, width: 16, heads: 2, context: 16 })",
    data: 'text("words.txt", { heldOut: 0.1 })',
    optimizer: "adamw({ learningRate: 1e-2 })",
    batch: "4",
    steps: "6",
    sample: '{ prompt: "the ", tokens: 5 }',
    ...fields,
  };
  const lines = Object.entries(run).map(([name, value]) => `  ${name}: ${value},`);
  return {
    "words.txt": WORDS,
    "run.ts": [
      'import * as lockstep from "lockstep";',
      "const { adamw, arrays, crossEntropy, csv, gpt, idxImages, mlp, onnx, sgd, text } = lockstep;",
      `export default lockstep.defineRun({\n${lines.join("\n")}\n});`,
    ].join("\n"),
  };
}

/** The processes that a process has started. */
export function childrenOf(pid: number | undefined): number[] {
  const path = `/proc/${pid}/task/${pid}/children`;
  return existsSync(path) ? readFileSync(path, "utf8").trim().split(" ").map(Number) : [];
}
