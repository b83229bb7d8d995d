/**
 * Memory limits: workers that share a model train where one process alone is refused with a
 * sentence.
 */
import assert from "node:assert/strict";
import { type SpawnSyncReturns, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { LockstepError } from "../src/errors.ts";
import { evenTopology } from "../src/mesh/index.ts";
import { mlp } from "../src/nn/index.ts";
import { adamw } from "../src/optimizer/index.ts";
import { comparison } from "../src/parallel/index.ts";
import { buildStep, stepFacts } from "../src/plan/index.ts";
import type { Program } from "../src/program/index.ts";
import { checkMemory } from "../src/train/memory.ts";
import { withFolder } from "./support/folder.ts";

const cli = fileURLToPath(new URL("../../dist/main.js", import.meta.url));

/** Seven products of 2048 × 2048: 29 million parameters, 16 bytes each with gradient and slots. */
const runOf = (microBatches: number) => `
import { adamw, arrays, defineRun, mlp, tensorFrom } from "lockstep";
const x = Array.from({ length: 8 * 2048 }, (_, at) => ((at * 37) % 101) / 101);
export default defineRun({
  model: mlp({ inputs: [2048], hidden: [2048, 2048, 2048, 2048, 2048, 2048, 2048], outputs: 2 }),
  data: arrays({
    x: tensorFrom("float32", [8, 2048], x),
    label: tensorFrom("int32", [8], [0, 1, 0, 1, 1, 0, 1, 0]),
  }),
  optimizer: adamw({ learningRate: 1e-3 }),
  clipNorm: 1, batch: 4, microBatches: ${microBatches}, steps: 2,
});`;

/** What a worker of four is predicted to need, with its process and a margin, by zero stage. */
function predictedNeed(zero: 2 | 3): number {
  const hidden = Array.from({ length: 7 }, () => 2048);
  const model = mlp({ inputs: [2048], hidden, outputs: 2 }).build({ batch: 1, mode: "train" });
  const optimizer = adamw({ learningRate: 1e-3 });
  const step = buildStep({ model, optimizer, microBatches: 4, clip: 1 });
  const ways = comparison({
    facts: stepFacts(step, optimizer),
    machine: {
      topology: evenTopology(4, 1),
      memory: Number.POSITIVE_INFINITY,
      lanes: 1,
      flopsPerSecond: 1e9,
      link: { latency: 0, bytesPerSecond: 1e9 },
      bucketBytes: 1e6,
    },
  });
  return ways.find(({ sharing }) => sharing.zero === zero)?.need as number;
}

/**
 * 1.2 times what a worker of four needs with zero 3: 118 MB of state, 34 of two gathered layers, 50
 * of gradients that are exchanged, and the process itself. All state takes 470 MB.
 */
const LIMIT = 1.2 * predictedNeed(3);

/**
 * One process takes 236 MB of parameters and gradients and as much of slots, and the rest of above.
 */
const LIMIT_OF_ONE = 450e6;

/** Halfway between what a worker of four needs with zero 3 and with zero 2. */
const TIGHT = (predictedNeed(3) + predictedNeed(2)) / 2;

/**
 * Returns the folder of this process's control group for memory; undefined if none can be created
 * below it.
 */
function controlGroup(): string | undefined {
  const lines = existsSync("/proc/self/cgroup")
    ? readFileSync("/proc/self/cgroup", "utf8").split("\n")
    : [];
  const own = (pattern: RegExp, root: string) => {
    const line = lines.find((each) => pattern.test(each));
    return line === undefined ? [] : [join(root, line.replace(pattern, ""))];
  };
  const folders = [
    ...own(/^\d+:memory:/, "/sys/fs/cgroup/memory"),
    ...own(/^0::/, "/sys/fs/cgroup"),
  ];
  return folders.find((folder) => {
    const trial = join(folder, `lockstep-trial-${process.pid}`);
    try {
      mkdirSync(trial);
      const files = ["memory.limit_in_bytes", "memory.max"].map((name) => join(trial, name));
      const usable = files.some(existsSync);
      rmdirSync(trial);
      return usable;
    } catch {
      return false;
    }
  });
}

/**
 * Returns code that puts each process that Node starts into a control group with the limit, before
 * it does anything else. A worker writes its peak of mapped memory to a file of the run's folder.
 */
function limited(parent: string, name: string, limit: number): string {
  const code = `
    import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
    const own = ${JSON.stringify(join(parent, name))} + "-" + process.pid;
    mkdirSync(own);
    const old = own + "/memory.limit_in_bytes";
    writeFileSync(existsSync(old) ? old : own + "/memory.max", "${Math.floor(limit)}");
    writeFileSync(own + "/cgroup.procs", String(process.pid));
    process.on("exit", () => {
      const status = readFileSync("/proc/self/status", "utf8");
      const bytes = (name) => 1024 * Number(new RegExp(name + ":\\\\s+(\\\\d+)").exec(status)[1]);
      if (process.send !== undefined) writeFileSync("peak-" + process.pid, String(bytes("VmHWM")));
    });`;
  return `--import=data:text/javascript,${encodeURIComponent(code)}`;
}

const parent = controlGroup();
const skip =
  parent === undefined ? "no control group with a limit of memory can be made here" : false;

type Train = (...words: string[]) => SpawnSyncReturns<string>;

/**
 * Runs `body` in a folder whose runs have a control group with the limit for each of their
 * processes.
 */
function withLimit(limit: number, body: (train: Train, folder: string) => void): Promise<void> {
  return withFolder({ "train.ts": runOf(4), "one.ts": runOf(1) }, async (folder) => {
    const name = `lockstep-test-${process.pid}`;
    const group = parent as string;
    const env = { ...process.env, NODE_OPTIONS: limited(group, name, limit) };
    const train: Train = (...words) =>
      spawnSync(process.execPath, [cli, "train", ...words, "--threads", "1"], {
        cwd: folder,
        encoding: "utf8",
        env,
      });
    try {
      body(train, folder);
    } finally {
      removeGroups(group, name);
    }
  });
}

test(
  "four workers with zero 3 train below a limit at which one process alone is refused",
  { skip },
  () =>
    withLimit(LIMIT, (train, folder) => {
      const alone = train("train.ts", "--workers", "1", "--out", "alone");
      assert.equal(alone.status, 1, alone.stderr);
      assert.match(alone.stderr, /One process alone would need at least \d+ MB of memory/);
      assert.match(alone.stderr, /--workers 4 with --zero 3[^]*\[OUT_OF_MEMORY\]/);
      const all = train("train.ts", "--workers", "4", "--zero", "3", "--out", "all");
      assert.equal(all.status, 0, all.stderr + all.stdout);
      const report = JSON.parse(readFileSync(join(folder, "all", "report.json"), "utf8"));
      assert.equal(report.workers, 4);
      // The first worker wrote a checkpoint and both files of weights out of the memory of all
      // workers, piece by piece.
      const peaks = readdirSync(folder)
        .filter((file) => file.startsWith("peak-"))
        .map((file) => Number(readFileSync(join(folder, file), "utf8")))
        .sort((a, b) => a - b);
      assert.equal(peaks.length, 4);
      const [least = 0, most = 0] = [peaks[0], peaks[3]];
      assert.ok(most <= 1.1 * least, `peaks of workers, in bytes: ${peaks.join(", ")}`);
    }),
);

test(
  "one process trains with its slots on disk below a limit that it is refused at without",
  { skip },
  () =>
    withLimit(LIMIT_OF_ONE, (train, folder) => {
      // One micro-batch: gradients once.
      const whole = ["one.ts", "--workers", "1", "--out", "out"];
      const refused = train(...whole, "--parallel", "data=1");
      assert.equal(refused.status, 1, refused.stderr);
      assert.match(
        refused.stderr,
        /optimizer slots 23[56][.\d]* MB.*may use only \d+ MB[^]*\[OUT_OF_MEMORY\]/,
      );
      const all = train(...whole, "--offload", "disk");
      assert.equal(all.status, 0, all.stderr + all.stdout);
      assert.match(all.stdout, /optimizer slots 235[.\d]* MB lie on the disk of "out"/);
      const report = JSON.parse(readFileSync(join(folder, "out", "report.json"), "utf8"));
      assert.equal(report.steps, 2);
      const chosen = train("one.ts", "--workers", "1", "--out", "chosen");
      assert.equal(chosen.status, 0, chosen.stderr + chosen.stdout);
      assert.match(
        chosen.stdout,
        /sharing: One worker with offload to disk, because one worker would take \d+ MB a worker of the 450 MB that it has/,
      );
      assert.match(chosen.stdout, /optimizer slots 235[.\d]* MB lie on the disk of "chosen"/);
      const [first, second] = ["out", "chosen"].map((out) =>
        JSON.parse(readFileSync(join(folder, out, "report.json"), "utf8")),
      );
      assert.equal(first.weightsSha256, second.weightsSha256);
    }),
);

test("without any option, four workers choose zero 3 where nothing simpler fits", { skip }, () =>
  withLimit(TIGHT, (train) => {
    const run = train("train.ts", "--workers", "4", "--out", "out");
    assert.equal(run.status, 0, run.stderr + run.stdout);
    assert.match(
      run.stdout,
      /sharing: Zero 3, because zero 1 would take \d+ MB a worker of the \d+ MB that it has \(.*zero 2: \d+ MB\); zero 3 takes \d+ MB\./,
    );
  }),
);

function removeGroups(parent: string, name: string): void {
  for (const found of readdirSync(parent)) {
    if (found.startsWith(name)) rmdirSync(join(parent, found));
  }
}

test(
  "running out of addresses is an error with a code, and no crash",
  { skip: process.platform !== "linux" && "uses prlimit" },
  () =>
    withFolder({ "train.ts": runOf(4) }, async (folder) => {
      const words = [cli, "train", "train.ts", "--threads", "1", "--out", "out"];
      const run = spawnSync("prlimit", [`--data=${500e6}`, process.execPath, ...words], {
        cwd: folder,
        encoding: "utf8",
      });
      assert.equal(run.status, 1, run.stderr);
      assert.match(run.stderr, /\[OUT_OF_MEMORY\]/);
      assert.match(run.stderr, /--zero 3/);
    }),
);

test("the refusal names the memory that is needed and the memory that there is", () => {
  const program: Program = {
    buffers: new Map([
      ["parameters", { byteLength: 4e9, space: "device" }],
      [
        "gradients",
        { byteLength: 4e9, space: "device", parts: [{ byteOffset: 0, byteLength: 1e9 }] },
      ],
      ["slot.adamw.exp_avg", { byteLength: 4e9, space: "device" }],
      ["batch", { byteLength: 9e9, space: "host" }],
    ]),
    shared: new Set(),
    graphs: new Map(),
    groups: new Map(),
  };
  checkMemory(program, 1, 9e9);
  assert.throws(
    () => checkMemory(program, 2, 8.9e9),
    (error: unknown) =>
      error instanceof LockstepError &&
      error.code === "OUT_OF_MEMORY" &&
      /Each of 2 workers would need at least 9,000 MB.*may use only 8,900 MB/.test(error.message),
  );
});
