/**
 * Memory limits: workers that share a model train where one process alone is refused with a
 * sentence.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { LockstepError } from "../src/errors.ts";
import type { Program } from "../src/program/index.ts";
import { checkMemory } from "../src/train/memory.ts";
import { withFolder } from "./support/folder.ts";

const cli = fileURLToPath(new URL("../src/cli/main.js", import.meta.url));

/** Seven products of 2048 × 2048: 29 million parameters, 16 bytes each with gradient and slots. */
const RUN = `
import { adamw, arrays, defineRun, mlp, tensorFrom } from "lockstep";
const x = Array.from({ length: 8 * 2048 }, (_, at) => ((at * 37) % 101) / 101);
export default defineRun({
  model: mlp({ inputs: [2048], hidden: [2048, 2048, 2048, 2048, 2048, 2048, 2048], outputs: 2 }),
  data: arrays({
    x: tensorFrom("float32", [8, 2048], x),
    label: tensorFrom("int32", [8], [0, 1, 0, 1, 1, 0, 1, 0]),
  }),
  optimizer: adamw({ learningRate: 1e-3 }),
  clipNorm: 1, batch: 4, microBatches: 4, steps: 2,
});`;

/**
 * A limit between what one of four workers needs (118 MB, three gathered layers and the process
 * itself) and what all state takes (470 MB).
 */
const LIMIT = 450e6;
/** Below what a worker of four needs with zero 2 (424 MB with its process), and above what it needs with zero 3 (363 MB). */
const TIGHT = 400e6;

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

/** Each process that Node starts gets a control group of its own, with the limit, before it does anything else. */
function limited(parent: string, name: string, limit: number): string {
  const code = `
    import { existsSync, mkdirSync, writeFileSync } from "node:fs";
    const own = ${JSON.stringify(join(parent, name))} + "-" + process.pid;
    mkdirSync(own);
    const old = own + "/memory.limit_in_bytes";
    writeFileSync(existsSync(old) ? old : own + "/memory.max", "${limit}");
    writeFileSync(own + "/cgroup.procs", String(process.pid));`;
  return `--import=data:text/javascript,${encodeURIComponent(code)}`;
}

const parent = controlGroup();
const skip =
  parent === undefined ? "no control group with a limit of memory can be made here" : false;

test(
  "four workers with zero 3 train below a limit at which one process alone is refused",
  { skip },
  () =>
    withFolder({ "train.ts": RUN }, async (folder) => {
      const name = `lockstep-test-${process.pid}`;
      const group = parent as string;
      const train = (...words: string[]) =>
        spawnSync(process.execPath, [cli, "train", "train.ts", "--threads", "1", ...words], {
          cwd: folder,
          encoding: "utf8",
          env: { ...process.env, NODE_OPTIONS: limited(group, name, LIMIT) },
        });
      try {
        const alone = train("--workers", "1", "--out", "alone");
        assert.equal(alone.status, 1, alone.stderr);
        assert.match(alone.stderr, /One process alone would need at least \d+ MB of memory/);
        assert.match(alone.stderr, /--workers 4 with --zero 3[^]*\[OUT_OF_MEMORY\]/);
        const all = train("--workers", "4", "--zero", "3", "--out", "all");
        assert.equal(all.status, 0, all.stderr + all.stdout);
        const report = JSON.parse(readFileSync(join(folder, "all", "report.json"), "utf8"));
        assert.equal(report.workers, 4);
      } finally {
        removeGroups(group, name);
      }
    }),
);

test("without any option, four workers choose zero 3 where nothing simpler fits", { skip }, () =>
  withFolder({ "train.ts": RUN }, async (folder) => {
    const name = `lockstep-choice-${process.pid}`;
    const group = parent as string;
    const words = ["train", "train.ts", "--threads", "1", "--workers", "4", "--out", "out"];
    try {
      const run = spawnSync(process.execPath, [cli, ...words], {
        cwd: folder,
        encoding: "utf8",
        env: { ...process.env, NODE_OPTIONS: limited(group, name, TIGHT) },
      });
      assert.equal(run.status, 0, run.stderr + run.stdout);
      assert.match(
        run.stdout,
        /sharing: Zero 3, because zero 1 would take \d+ MB a worker of the 400 MB that it has \(.*zero 2: \d+ MB\); zero 3 takes \d+ MB\./,
      );
    } finally {
      removeGroups(group, name);
    }
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
    withFolder({ "train.ts": RUN }, async (folder) => {
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
