/**
 * Runs shared by real processes: the weights of one process alone, and failures with a name and a
 * bound.
 */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { writeJob } from "../src/job/index.ts";
import { launchLocal } from "../src/launch/index.ts";
import type { Report, RunEvent } from "../src/telemetry/index.ts";
import { tensorFrom } from "../src/tensor/index.ts";
import { withFolder } from "./support/folder.ts";
import { jobFolderOf, jobOfFile } from "./support/jobs.ts";
import { npyOf } from "./support/npy.ts";
import { randomNumbers } from "./support/random.ts";
import { WORDS } from "./support/runs.ts";

const GPT = `
import { adamw, defineRun, gpt, text } from "lockstep";
export default defineRun({
  model: gpt({ layers: 1, width: 16, heads: 2, context: 16, dropout: 0.1 }),
  data: text("words.txt"),
  optimizer: adamw({ learningRate: 1e-2 }),
  clipNorm: 1, batch: 8, microBatches: 8, steps: 50,
});`;

/** A run with batch normalization, which has statistics of its own, and with momentum. */
const RESNET = `
import { defineRun, npy, resnet, sgd } from "lockstep";
export default defineRun({
  model: resnet({ image: [1, 8, 8], classes: 3, blocks: [1, 1], channels: [4, 8], stem: "small" }),
  data: npy({ image: "images.npy", label: "labels.npy" }),
  optimizer: sgd({ learningRate: 0.05, momentum: 0.9 }),
  batch: 16, microBatches: 8, steps: 50,
});`;

const IMAGES = 60;
const images = npyOf(tensorFrom("float32", [IMAGES, 1, 8, 8], randomNumbers(1, IMAGES * 64)));
const labels = npyOf(
  tensorFrom("int32", [IMAGES], randomNumbers(2, IMAGES, [0, 3]).map(Math.floor)),
);

/** Makes workers throw this error at SIGUSR2. */
const FRAGILE = `--import=data:text/javascript,${encodeURIComponent(
  'process.on("SIGUSR2", () => { throw new Error("the floor gave way"); });',
)}`;

/**
 * A run file that reports each execution; every execution would have a seed and data of its own.
 */
const DRAWN = `
import { appendFileSync } from "node:fs";
import { adamw, arrays, defineRun, mlp, tensorFrom } from "lockstep";
appendFileSync(new URL("executed.txt", import.meta.url), process.pid + "\\n");
const x = Array.from({ length: 32 }, () => Math.random());
export default defineRun({
  model: mlp({ inputs: [1], hidden: [2], outputs: 2 }),
  data: arrays({
    x: tensorFrom("float32", [32, 1], x),
    label: tensorFrom("int32", [32], x.map((value) => Math.round(value))),
  }),
  optimizer: adamw({ learningRate: 1e-2 }), seed: process.pid, batch: 8, steps: 2,
});`;

const files = {
  "words.txt": WORDS,
  "images.npy": images,
  "labels.npy": labels,
  "gpt.ts": GPT,
  "resnet.ts": RESNET,
  "drawn.ts": DRAWN,
  "diverging.ts": GPT.replace("learningRate: 1e-2", "learningRate: 1e30").replace(
    "clipNorm: 1,",
    "",
  ),
};

interface Launch {
  readonly folder: string;
  readonly workers: number;
  readonly file?: string;
  /** A job's folder, in place of a run file. */
  readonly job?: string;
  readonly threads?: number;
  readonly steps?: number;
  readonly onEvent?: (event: RunEvent) => void;
  readonly signal?: AbortSignal;
  readonly beginning?: "anew" | "resume";
  readonly deadlineMs?: number;
}

/** The jobs of run files that many tests use, with a copy of their data: folders, by file. */
const jobs = new Map<string, string>();
let shared = "";
before(async () => {
  shared = mkdtempSync(join(tmpdir(), "lockstep-test-"));
  for (const [name, content] of Object.entries(files)) writeFileSync(join(shared, name), content);
  for (const file of ["gpt.ts", "resnet.ts"]) {
    const folder = join(shared, `job of ${file}`);
    mkdirSync(folder);
    await writeJob(folder, await jobOfFile({ file: join(shared, file) }));
    jobs.set(file, folder);
  }
});
after(() => rmSync(shared, { recursive: true, force: true }));

function launch({ folder, workers, file = "gpt.ts", threads = 1, ...rest }: Launch) {
  return launchLocal({
    job: rest.job ?? jobs.get(file) ?? (() => jobFolderOf({ file: join(folder, file) })),
    roots: ["/"],
    overrides: { steps: rest.steps },
    out: join(folder, "out"),
    beginning: rest.beginning ?? "anew",
    workers,
    threads,
    onEvent: rest.onEvent ?? (() => undefined),
    signal: rest.signal ?? new AbortController().signal,
    ...(rest.deadlineMs === undefined ? {} : { deadlineMs: rest.deadlineMs }),
  });
}

function reportIn(folder: string): Report {
  return JSON.parse(readFileSync(join(folder, "out", "report.json"), "utf8")) as Report;
}

/** Returns the processes that this one has started, in order. */
function children(): number[] {
  const path = `/proc/self/task/${process.pid}/children`;
  return readFileSync(path, "utf8").trim().split(" ").map(Number);
}

function sharedMemory(): string[] {
  return readdirSync("/dev/shm").filter((name) => name.includes(`-${process.pid}-`));
}

const onLinux = process.platform === "linux" ? {} : { skip: "looks at /proc and /dev/shm" };

/** More numbers are tried in one process: `test/ranks.test.ts`. */
const CREWS: Readonly<Record<string, readonly (readonly [workers: number, threads: number])[]>> = {
  "gpt.ts": [
    [1, 2],
    [2, 2],
    [3, 1],
    [8, 1],
  ],
  "resnet.ts": [
    [1, 1],
    [2, 1],
    [3, 1],
  ],
};

for (const [file, crews] of Object.entries(CREWS)) {
  const numbers = crews.map(([workers, threads]) => `${workers}×${threads}`).join(", ");
  test(`50 steps of ${file} give the same weights on workers × threads: ${numbers}`, () =>
    withFolder(files, async (folder) => {
      const hashes = file === "gpt.ts" ? [await weightsAfter(50)] : [];
      const validation: number[] = [];
      for (const [workers, threads] of crews) {
        const events: RunEvent[] = [];
        const onEvent = (event: RunEvent) => void events.push(event);
        assert.equal(await launch({ folder, file, workers, threads, onEvent }), "finished");
        const report = reportIn(folder);
        assert.deepEqual([report.workers, report.threads], [workers, threads]);
        assert.equal(events.filter(({ type }) => type === "step").length, 50, "one worker tells");
        hashes.push(report.weightsSha256);
        validation.push(report.validationLoss ?? Number.NaN);
      }
      assert.equal(new Set(hashes).size, 1, hashes.join(" "));
      const [first = Number.NaN] = validation;
      assert.ok(
        validation.every((loss) => Math.abs(loss - first) < 1e-5),
        validation.join(" "),
      );
    }));
}

test("all workers stop after the same step, and another number of workers resumes the run", () =>
  withFolder(files, async (folder) => {
    const controller = new AbortController();
    const onEvent = (event: RunEvent) => {
      if (event.type === "step" && event.step === 3) controller.abort();
    };
    const { signal } = controller;
    assert.equal(await launch({ folder, workers: 2, steps: 50, onEvent, signal }), "stopped");
    const outcome = await launch({ folder, workers: 1, steps: 50, beginning: "resume" });
    assert.equal(outcome, "finished");
    assert.equal(reportIn(folder).weightsSha256, await weightsAfter(50));
  }));

/** Launches a run, and does something to a worker after a step. Returns what the run told of it. */
async function launchAndHarm(
  options: Launch,
  step: number,
  harm: (pids: readonly number[]) => void,
): Promise<string> {
  const notices: string[] = [];
  let harmed = false;
  const onEvent = (event: RunEvent) => {
    if (event.type === "notice" || event.type === "membership") notices.push(event.text);
    if (harmed || event.type !== "step" || event.step < step) return;
    harmed = true;
    harm(children());
  };
  assert.equal(await launch({ ...options, onEvent }), "finished");
  assert.deepEqual(sharedMemory(), []);
  return notices.join("\n");
}

const weightsOfOne = new Map<number, Promise<string>>();

/** The weights of one undisturbed worker after this many steps. */
function weightsAfter(steps: number): Promise<string> {
  const known = weightsOfOne.get(steps);
  if (known !== undefined) return known;
  let weights = "";
  const running = withFolder(files, async (folder) => {
    assert.equal(await launch({ folder, workers: 1, steps }), "finished");
    weights = reportIn(folder).weightsSha256;
  }).then(() => weights);
  weightsOfOne.set(steps, running);
  return running;
}

for (const [how, rank, workers] of [
  ["SIGKILL", 1, 3],
  ["SIGKILL", 0, 3],
  ["SIGUSR2", 1, 2],
] as const) {
  test(`worker ${rank} lost by ${how}: the run goes on to the weights of one worker`, onLinux, () =>
    withFolder(files, async (folder) => {
      const expected = await weightsAfter(120);
      process.env["NODE_OPTIONS"] = FRAGILE;
      const running = launchAndHarm({ folder, workers, steps: 120 }, 3, (pids) => {
        process.kill(pids[rank] as number, how);
      });
      delete process.env["NODE_OPTIONS"];
      const told = await running;
      assert.equal(reportIn(folder).weightsSha256, expected);
      assert.match(told, new RegExp(`Worker ${rank} .* was lost at step`));
      assert.match(told, how === "SIGUSR2" ? /the floor gave way/ : /by SIGKILL/);
      assert.match(told, /Generation 2 begins after step/);
      const { history } = reportIn(folder);
      assert.equal(history.workersLost, 1);
      const { batch } = reportIn(folder);
      assert.deepEqual([history.samplesCommitted, history.samplesRepeated], [120 * batch, 0]);
      assert.ok(history.generations >= 2 && history.recoverySeconds.length === 1);
      // Each step has one line, whoever leads.
      const lines = readFileSync(join(folder, "out", "metrics.jsonl"), "utf8")
        .trim()
        .split("\n");
      const steps = lines
        .map((line) => JSON.parse(line) as { type: string; step: number })
        .filter(({ type }) => type === "step");
      assert.deepEqual(
        steps.map(({ step }) => step),
        Array.from({ length: 120 }, (_, index) => index + 1),
      );
    }),
  );
}

test("a worker lost before all have met: the others do not wait for it", onLinux, () =>
  withFolder(files, async (folder) => {
    const running = launch({ folder, workers: 3, steps: 50 });
    process.kill(children()[1] as number, "SIGKILL");
    assert.equal(await running, "finished");
    assert.equal(reportIn(folder).weightsSha256, await weightsAfter(50));
    assert.deepEqual(sharedMemory(), []);
  }),
);

test("a worker that is stopped is found, killed and replaced", onLinux, () =>
  withFolder(files, async (folder) => {
    const expected = await weightsAfter(50);
    const told = await launchAndHarm({ folder, workers: 2, steps: 50 }, 5, (pids) => {
      process.kill(pids[1] as number, "SIGSTOP");
    });
    assert.equal(reportIn(folder).weightsSha256, expected);
    assert.match(
      told,
      /Worker 1 .* was lost .*: it showed no sign of life for 1\.5 s, and its process is stopped/,
    );
  }),
);

test("workers that all end by the same error end the run, and it is not tried again", onLinux, () =>
  withFolder(files, async (folder) => {
    const notices: RunEvent[] = [];
    const losing = launch({
      folder,
      workers: 2,
      file: "diverging.ts",
      onEvent: (event) => void notices.push(event),
    });
    await assert.rejects(losing, { code: "NOT_FINITE" });
    assert.deepEqual(sharedMemory(), []);
  }),
);

test("an error of one worker is the run's error", () =>
  withFolder(files, async (folder) => {
    const job = await jobFolderOf({ file: join(folder, "gpt.ts") });
    rmSync(join(folder, "words.txt"));
    const losing = launch({ folder, workers: 2, job });
    await assert.rejects(losing, { code: "DATA_EMPTY" });
  }));

test("a run file that cannot be loaded ends the workers that wait for its job", onLinux, () =>
  withFolder(files, async (folder) => {
    await assert.rejects(launch({ folder, workers: 2, file: "none.ts" }), {
      code: "FILE_NOT_FOUND",
    });
    assert.ok(!children().some((pid) => pid > 0), "a worker is left");
  }),
);

test("a run file is executed once, in the launcher, so numbers that it draws are the same for all", () =>
  withFolder(files, async (folder) => {
    assert.equal(await launch({ folder, workers: 2, file: "drawn.ts" }), "finished");
    const executed = readFileSync(join(folder, "executed.txt"), "utf8");
    assert.equal(executed, `${process.pid}\n`);
    assert.equal(reportIn(folder).seed, process.pid);
  }));

test("data that changes after the job was made is refused", () =>
  withFolder(files, async (folder) => {
    const job = await jobFolderOf({ file: join(folder, "gpt.ts") });
    writeFileSync(join(folder, "words.txt"), WORDS.slice(0, 2000));
    await assert.rejects(launch({ folder, workers: 2, job }), {
      code: "DATA_DIFFERS",
      message: /The data here is 118 samples.*, but the job was made with 2\d\d samples/,
    });
  }));
