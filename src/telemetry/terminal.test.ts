import assert from "node:assert/strict";
import { Writable } from "node:stream";
import { test } from "node:test";
import type { Report, RunEvent, StepDone } from "./events.ts";
import { printable, printableLine } from "./printable.ts";
import { type TerminalOptions, terminalSink } from "./terminal.ts";
import { duration } from "./words.ts";

/** What a terminal of this many columns shows: its lines, of which the last has the cursor. */
class Screen extends Writable {
  readonly isTTY: boolean;
  readonly columns: number;
  written = "";
  constructor({ isTTY = true, columns = 80 } = {}) {
    super();
    this.isTTY = isTTY;
    this.columns = columns;
  }
  override _write(piece: Buffer, _encoding: string, done: () => void): void {
    this.written += piece.toString("utf8");
    done();
  }
  get lines(): string[] {
    // oxlint-disable-next-line no-control-regex -- this test is about escape sequences
    const text = this.written.replace(/\x1b\[\d*m/g, "");
    // oxlint-disable-next-line no-control-regex
    return text.split("\n").map((line) => line.replace(/^.*\r\x1b\[2K/s, ""));
  }
}

const step = (number: number, more: Partial<StepDone> = {}): StepDone => ({
  type: "step",
  step: number,
  steps: 600,
  loss: 2.34567,
  gradientNorm: 1,
  learningRate: 0.001,
  samplesPerSecond: 12.5,
  tokensPerSecond: 12_345.6,
  secondsLeft: 100,
  ...more,
});

function show(
  screen: Screen,
  events: readonly (readonly [atMs: number, event: RunEvent])[],
  options: Partial<TerminalOptions> = {},
): string[] {
  let nowMs = 0;
  const sink = terminalSink({ stream: screen, now: () => nowMs, ...options });
  for (const [atMs, event] of events) {
    nowMs = atMs;
    sink(event);
  }
  return screen.lines;
}

test("a terminal shows one line that is rewritten, at every width", () => {
  for (const columns of [20, 40, 60, 80, 120, 200]) {
    const screen = new Screen({ columns });
    const most = { steps: 1_000_000, tokensPerSecond: 1_234_567, secondsLeft: 359_999 };
    const lines = show(screen, [
      [0, step(1, most)],
      [1000, step(999_999, most)],
      [2000, step(1_000_000, most)],
    ]);
    assert.equal(lines.length, 1, "no line is left over");
    // oxlint-disable-next-line no-control-regex
    for (const painted of screen.written.replace(/\x1b\[\d+m/g, "").split("\r\x1b[2K")) {
      assert.ok(painted.length <= columns - 4, `${painted.length} of ${columns}: ${painted}`);
    }
  }
  const [line = ""] = show(new Screen({ columns: 120 }), [[0, step(300)]]);
  assert.match(
    line,
    /^█{15}░{15} {2}step 300\/600 {2}loss 2\.3457 {2}12,346 tokens\/s {2}1 min 40 s left$/,
  );
});

test("the line is repainted at most ten times a second, and the last step is always shown", () => {
  const screen = new Screen();
  show(screen, [
    [0, step(1)],
    [50, step(2)],
    [99, step(3)],
    [100, step(4)],
    [110, step(600)],
  ]);
  const painted = [...screen.written.matchAll(/step (\d+)\/600/g)].map((match) => match[1]);
  assert.deepEqual(painted, ["1", "4", "600"]);
});

test("other lines appear above the live line, which stays", () => {
  const lines = show(
    new Screen(),
    [
      [0, step(1)],
      [0, { type: "evaluated", step: 1, loss: 2.5 }],
      [0, { type: "stopping" }],
      [0, { type: "stopped", step: 1, steps: 600, out: "runs/a", files: ["model.onnx"] }],
    ],
    { resumeCommand: "lockstep train a.ts --resume" },
  );
  assert.deepEqual(lines, [
    "step 1: validation loss 2.5000",
    "Stopping after this step. Ctrl-C again ends at once, without saving.",
    "Stopped after step 1 of 600. Saved in runs/a.",
    "Continue with:",
    "  lockstep train a.ts --resume",
    "",
  ]);
});

test("workers are shown with their shares, at the start and when these change", () => {
  const started = (
    workers: number,
    threads: number,
    shares: readonly number[],
    sharing?: string,
  ) => {
    const event: RunEvent = {
      type: "started",
      notes: [],
      name: "a",
      out: "runs/a",
      model: "gpt",
      parameters: 5,
      data: "1 file",
      engine: "e",
      workers,
      threads,
      shares,
      ...(sharing === undefined ? {} : { sharing }),
      steps: 600,
      batch: 8,
      firstStep: 0,
      seconds: 1,
    };
    return show(new Screen(), [[0, event]]);
  };
  assert.equal(started(1, 2, [4])[2], "engine: e, 2 threads");
  assert.equal(
    started(2, 1, [2, 2])[2],
    "engine: e, 2 workers of 1 thread: micro-batches 2 + 2 of 4",
  );
  const sharing = "Zero 3, because data would take 5 GB a worker of the 3 GB that it has.";
  assert.equal(started(2, 1, [2, 2], sharing)[3], `sharing: ${sharing}`);
  const many = Array.from({ length: 12 }, (_, rank) => (rank < 4 ? 2 : 1));
  assert.match(
    started(12, 1, many)[2] ?? "",
    /12 workers of 1 thread: micro-batches 1 to 2 each of 16/,
  );
  const reason = "Workers are as fast as 1.00 : 0.50: they now compute 3 + 1 micro-batches.";
  const lines = show(new Screen(), [
    [0, step(6)],
    [0, { type: "shared", step: 6, reason }],
  ]);
  assert.equal(lines[0], `step 6: ${reason}`);
  assert.match(lines[1] ?? "", /step 6\/600/, "progress stays");
});

test("an error is printed on a line of its own, below the last progress", () => {
  const failed: RunEvent = { type: "failed", step: 1, code: "DISK_FULL", out: "o", files: [] };
  const lines = show(new Screen({ columns: 60 }), [
    [0, step(1)],
    [0, failed],
  ]);
  assert.equal(lines.length, 2);
  assert.match(lines[0] ?? "", /^step 1\/600 /);
  assert.equal(lines[1], "");
});

test("without a terminal, plain lines are printed from time to time, without escapes", () => {
  const screen = new Screen({ isTTY: false });
  const lines = show(screen, [
    [0, step(1)],
    [4999, step(2)],
    [5000, step(3, { tokensPerSecond: undefined })],
    [5001, step(600, { secondsLeft: 0 })],
  ]);
  assert.deepEqual(lines, [
    "step 1/600  loss 2.3457  12,346 tokens/s  1 min 40 s left",
    "step 3/600  loss 2.3457  12.5 samples/s  1 min 40 s left",
    "step 600/600  loss 2.3457  12,346 tokens/s  0 s left",
    "",
  ]);
  assert.ok(!screen.written.includes("\r") && !screen.written.includes("\x1b"));
});

const report: Report = {
  name: "a",
  steps: 600,
  samples: 9600,
  trainLoss: 1.5,
  validationLoss: 1.6,
  tokensPerSecond: 9000,
  samplesPerSecond: 70,
  parameters: 1_853_568,
  seconds: 185,
  seed: 1,
  weightsSha256: "00",
  engine: "ort-native (onnxruntime 1.30.0)",
  workers: 1,
  threads: 2,
  batch: 16,
  bitsPerByte: { model: 2, bigram: 4, gzip: 1.5 },
  sample: "one\n\x1b[31mtwo\n",
  modelBatch: "any",
  notes: [],
  history: {
    workersLost: 0,
    workersJoined: 0,
    generations: 1,
    stepsRepeated: 0,
    recoverySeconds: [],
    samplesCommitted: 9_600,
    samplesRepeated: 0,
  },
};

test("colours are used on terminals only, and NO_COLOR turns them off", () => {
  const event: RunEvent = {
    type: "finished",
    report,
    files: ["model.onnx", "report.json"],
    out: "o",
  };
  const colored = new Screen();
  show(colored, [[0, event]], { env: {} });
  assert.ok(colored.written.includes("\x1b[32m"));
  for (const [screen, env] of [
    [new Screen(), { NO_COLOR: "1" }],
    [new Screen(), { TERM: "dumb" }],
    [new Screen({ isTTY: false }), {}],
  ] as const) {
    if ("TERM" in env)
      assert.ok(show(screen, [[0, step(1)]], { env }).length === 2, "no live line");
    show(screen, [[0, event]], { env });
    if (!("TERM" in env)) assert.ok(!screen.written.includes("\x1b"));
  }
});

test("the end shows the result, and a sample cannot send escapes to the terminal", () => {
  const event: RunEvent = {
    type: "finished",
    report,
    files: ["model.onnx", "report.json"],
    out: "o",
  };
  assert.deepEqual(show(new Screen({ isTTY: false }), [[0, event]]), [
    "600 steps, 9,600 samples in 3 min 05 s, 9,000 tokens/s: training loss 1.5000, validation loss 1.6000",
    "",
    "Bits per byte of held-out text (smaller is better):",
    `  this model   2.000  ${"█".repeat(15)}`,
    `  bigram model 4.000  ${"█".repeat(30)}`,
    `  gzip -9      1.500  ${"█".repeat(11)}`,
    "",
    "A sample:",
    "  one",
    "  ·[31mtwo",
    "",
    "Written to o:",
    "  model.onnx report.json",
    "",
  ]);
  const bare = {
    ...report,
    validationLoss: null,
    tokensPerSecond: null,
    bitsPerByte: null,
    sample: null,
    modelBatch: "any" as const,
    notes: [],
    history: { ...report.history, samplesRepeated: 48 },
  };
  assert.deepEqual(show(new Screen({ isTTY: false }), [[0, { ...event, report: bare }]]), [
    "600 steps, 9,600 samples in 3 min 05 s, 70 samples/s: training loss 1.5000",
    "48 samples of committed steps were computed again, because the run fell back to a checkpoint.",
    "",
    "Written to o:",
    "  model.onnx report.json",
    "",
  ]);
});

test("durations and texts are readable", () => {
  const cases = [
    [0.4, "0 s"],
    [59.4, "59 s"],
    [59.6, "1 min 00 s"],
    [3599, "59 min 59 s"],
    [3600, "1 h 00 min"],
    [-1, "0 s"],
  ] as const;
  for (const [seconds, words] of cases) assert.equal(duration(seconds), words);
  assert.equal(printable("a\tb\nc\u0007\u202e é 日"), "a  b\nc·· é 日");
  assert.equal(
    printableLine("What went wrong.\n  What to do.\u0007"),
    "What went wrong. What to do.·",
  );
});

test("flipped bits are told with what they may have changed", () => {
  const healed = { type: "healed", step: 12, rank: 1, from: 0, since: 11, isExact: true } as const;
  const shown = show(new Screen({ isTTY: false }), [
    [0, healed],
    [1, { ...healed, since: 4, isExact: false }],
  ]);
  const found =
    "After step 12, weights of worker 1 were not what they should be, and were replaced by those of worker 0.";
  assert.deepEqual(shown, [
    `${found} No committed step was computed with them.`,
    `${found} Steps 5 to 12 may have been computed with them; with checkReplicas: 1 that cannot happen.`,
    "",
  ]);
});
