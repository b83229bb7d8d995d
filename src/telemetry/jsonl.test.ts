import assert from "node:assert/strict";
import { existsSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { withFolder } from "../../test/support/folder.ts";
import type { RunEvent } from "./events.ts";
import { jsonlSink } from "./jsonl.ts";

const started = (firstStep: number): RunEvent => ({
  type: "started",
  notes: [],
  name: "a",
  out: "runs/a",
  model: "gpt",
  parameters: 5,
  data: "1 file",
  engine: "e",
  workers: 1,
  threads: 1,
  shares: [1],
  steps: 9,
  batch: 2,
  firstStep,
  seconds: 1,
});
const step = (number: number): RunEvent => ({
  type: "step",
  step: number,
  steps: 9,
  loss: 1 / number,
  gradientNorm: 2,
  learningRate: 0.1,
  samplesPerSecond: 3,
  tokensPerSecond: undefined,
  secondsLeft: 4,
});

function write(path: string, events: readonly RunEvent[]): void {
  const sink = jsonlSink(path, () => 1234);
  try {
    for (const event of events) sink.sink(event);
  } finally {
    sink.close();
  }
}

function steps(path: string): unknown[] {
  const lines = readFileSync(path, "utf8").trimEnd().split("\n");
  const objects = lines.map((line) => JSON.parse(line) as { type: string; step?: number });
  return objects.map(({ type, step: number }) => (type === "step" ? number : type));
}

test("each step is a line, with what is worth keeping", () =>
  withFolder({}, async (folder) => {
    const path = join(folder, "metrics.jsonl");
    write(path, [started(0), step(1), step(2)]);
    const lines = readFileSync(path, "utf8").split("\n");
    assert.equal(
      lines[1],
      '{"time":1234,"type":"step","step":1,"loss":1,"gradientNorm":2,"learningRate":0.1,"samplesPerSecond":3}',
    );
    assert.deepEqual(steps(path), ["started", 1, 2]);
  }));

test("a new run begins anew; one that goes on drops what comes after its step, and a broken line", () =>
  withFolder({}, async (folder) => {
    const path = join(folder, "metrics.jsonl");
    write(path, [started(0), step(1), step(2), { type: "evaluated", step: 2, loss: 1 }, step(3)]);
    write(path, [started(2), step(3), step(4)]);
    assert.deepEqual(steps(path), ["started", 1, 2, "evaluated", "started", 3, 4]);
    write(path, [started(0), step(1)]);
    assert.deepEqual(steps(path), ["started", 1]);
    write(path, [started(7), step(8)]);
    assert.deepEqual(steps(path), ["started", 1, "started", 8]);
  }));

test("nothing is written before the run has started", () =>
  withFolder({}, async (folder) => {
    const path = join(folder, "metrics.jsonl");
    write(path, [{ type: "stopped", step: 0, steps: 9, out: "runs/a", files: [] }]);
    assert.ok(!existsSync(path));
  }));

test("a full disk is an error with a code", { skip: process.platform !== "linux" }, () =>
  withFolder({}, async (folder) => {
    const path = join(folder, "metrics.jsonl");
    symlinkSync("/dev/full", path);
    assert.throws(() => write(path, [started(0)]), { code: "DISK_FULL" });
    assert.throws(() => write(join(folder, "no/folder.jsonl"), [started(0)]), {
      code: "IO_FAILED",
    });
  }),
);
