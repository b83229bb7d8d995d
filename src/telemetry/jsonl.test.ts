import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, linkSync, readFileSync, symlinkSync } from "node:fs";
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
  const sink = jsonlSink(path, { now: () => 1234 });
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

test("each step is a line with the values worth keeping", () =>
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

test("a new run starts the file anew; a resumed one removes the lines after its step, and a broken line", () =>
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

const onPosix = process.platform === "win32" ? { skip: "has no links and pipes" } : {};

test("a file that is not regular, or has a second name, is refused", onPosix, () =>
  withFolder({ private: "mine" }, async (folder) => {
    const file = (name: string) => join(folder, name);
    symlinkSync(file("private"), file("link"));
    linkSync(file("private"), file("hard"));
    execFileSync("mkfifo", [file("pipe")]);
    symlinkSync("/dev/full", file("device"));
    for (const name of ["link", "hard", "pipe", "device", ".", "no/folder"]) {
      assert.throws(() => write(file(name), [started(0)]), { code: "IO_FAILED" }, name);
    }
    assert.equal(readFileSync(file("private"), "utf8"), "mine");
  }),
);

test(
  "a file that cannot grow loses lines, reports it once, and ends with a whole line",
  onPosix,
  () =>
    withFolder({}, async (folder) => {
      const path = join(folder, "metrics.jsonl");
      const module = new URL("jsonl.js", import.meta.url).href;
      const code = `
      const { jsonlSink } = await import(${JSON.stringify(module)});
      const troubles = [];
      const options = { now: () => 1, onTrouble: (text) => troubles.push(text) };
      const { sink } = jsonlSink(${JSON.stringify(path)}, options);
      sink(${JSON.stringify(started(0))});
      for (let step = 1; step < 60; step++) sink({ ...${JSON.stringify(step(1))}, step });
      console.log(JSON.stringify(troubles));`;
      const words = ["-c", 'ulimit -f 4; exec "$@"', "sh", process.execPath];
      const said = execFileSync("sh", [...words, "--input-type=module", "-e", code]).toString();
      const [first = "", ...others] = JSON.parse(said) as string[];
      assert.match(first, /^Cannot write ".*metrics.jsonl": .*continues/s);
      assert.equal(others.length, 0);
      const kept = steps(path);
      assert.ok(kept.length > 5 && kept.length < 40);
      assert.deepEqual(
        kept.slice(1),
        Array.from({ length: kept.length - 1 }, (_, at) => at + 1),
      );
      assert.ok(readFileSync(path, "utf8").endsWith("\n"));
    }),
);
