/**
 * The surroundings of a run: other owners of its folder, terminals and disks that go away, pipes,
 * limits, a machine without /dev/shm.
 */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { withFolder } from "../support/folder.ts";
import { checkpointsOf, metricsOf, reportOf } from "../support/runs.ts";
import { type Ended, lockstep, runFiles } from "./support.ts";

const onPosix = process.platform === "win32" ? { skip: "has no such signals and files" } : {};
const onLinux = process.platform === "linux" ? {} : { skip: "looks at /proc" };
const canUnshare =
  process.platform === "linux" && spawnSync("unshare", ["-m", "true"]).status === 0
    ? {}
    : { skip: "needs a mount namespace of its own" };

const long = { steps: "100000", checkpointEvery: "100000", evaluate: "{ every: 100000 }" };
const train = (cwd: string, ...words: readonly string[]): Promise<Ended> =>
  lockstep(["train", "run.ts", "--threads", "1", ...words], { cwd });

/** Trains until `body`, called at the first step, has stopped it. */
function living(
  cwd: string,
  words: readonly string[],
  body: (child: ChildProcess) => void,
  through: readonly string[] = [],
) {
  let seen = false;
  return lockstep(["train", "run.ts", "--threads", "1", ...words], {
    cwd,
    through,
    onOutput: (stdout, child) => {
      if (seen || !stdout.includes("step 1/")) return;
      seen = true;
      body(child);
    },
  });
}

/** Returns the words before the command that run `shell` first, in a mount namespace of its own. */
const inNamespace = (shell: string) => [
  "unshare",
  "-m",
  "sh",
  "-c",
  `set -e; mount --make-rprivate /; ${shell}; exec "$@"`,
  "sh",
];

describe("what lies around a run", { concurrency: 2 }, () => {
  for (const workers of [1, 2]) {
    test(`a folder in which ${workers === 1 ? "a process" : "a worker"} trains is refused to others, also to --resume`, () =>
      withFolder(runFiles(long), async (cwd) => {
        const others: Promise<Ended>[] = [];
        const first = await living(cwd, ["--workers", String(workers)], (child) => {
          const ends = ["--anew", "--resume"].map((word) => train(cwd, word));
          others.push(...ends);
          void Promise.allSettled(ends).then(() => child.kill("SIGTERM"));
        });
        assert.equal(first.status, 143, first.stderr);
        for (const { status, stderr } of await Promise.all(others)) {
          assert.equal(status, 1);
          assert.match(
            stderr,
            /is being written to "runs.tiny" by process \d+ on ".+".*\[RUN_LOCKED\]|There is nothing to resume/s,
          );
        }
        const sampled = await lockstep(["sample", "runs/tiny", "--tokens", "2"], { cwd });
        assert.equal(sampled.status, 0, sampled.stderr);
      }));
  }

  test("a reader that goes away and an output that is full do not disturb a run", onPosix, () =>
    withFolder(runFiles({ steps: "40" }), async (cwd) => {
      const unread = await living(cwd, ["--out", "unread"], (child) => {
        child.stdout?.destroy();
        child.stderr?.destroy();
      });
      const through = ["sh", "-c", 'exec "$@" > /dev/full 2> /dev/full', "sh"];
      const words = ["train", "run.ts", "--threads", "1", "--out", "full"];
      const full = await lockstep(words, { cwd, through });
      for (const [{ status }, out] of [
        [unread, "unread"],
        [full, "full"],
      ] as const) {
        assert.equal(status, 0);
        assert.equal(reportOf(join(cwd, out)).steps, 40);
      }
    }),
  );

  test("every command that needs the current folder says when it was deleted", onLinux, () =>
    withFolder({ ...runFiles(), "gone/empty": "" }, async (cwd) => {
      const through = ["sh", "-c", 'cd gone && rm -r ../gone && exec "$@"', "sh"];
      const env = { LOCKSTEP_TOKEN: "sixteen letters or more" };
      const commands = [
        ["train", "run.ts"],
        ["train", join(cwd, "run.ts"), "--workers", "2"],
        ["plan", "run.ts"],
        ["agent", "--listen", "0"],
      ];
      for (const words of commands) {
        mkdirSync(join(cwd, "gone"), { recursive: true });
        const { status, stderr } = await lockstep(words, { cwd, env, through });
        assert.equal(status, 1, words.join(" "));
        assert.match(
          stderr,
          /^lockstep: The current folder ".*gone" .*deleted.*\n.*\[FILE_NOT_FOUND\]\n$/,
        );
      }
    }),
  );

  for (const [what, shell] of [
    ["nothing to read or write", 'exec "$@" <&- >&- 2>&-'],
    ["an input that cannot be read", 'exec "$@" < /'],
    ["no home and no folder for temporary files", 'unset HOME; TMPDIR=/nowhere/at/all exec "$@"'],
  ] as const) {
    test(`a run trains to its end with ${what}, with workers too`, onPosix, () =>
      withFolder(runFiles(), async (cwd) => {
        for (const workers of ["1", "2"]) {
          const words = [
            "train",
            "run.ts",
            "--threads",
            "1",
            "--out",
            workers,
            "--workers",
            workers,
          ];
          const { status, stderr } = await lockstep(words, {
            cwd,
            through: ["sh", "-c", shell, "sh"],
          });
          assert.deepEqual([status, stderr], [0, ""]);
          assert.equal(reportOf(join(cwd, workers)).steps, 6);
        }
      }),
    );
  }

  test("a hang-up stops the run cleanly and saves, with workers too", onPosix, () =>
    withFolder(runFiles(long), async (cwd) => {
      for (const workers of ["1", "2"]) {
        const { status, stdout, stderr } = await living(
          cwd,
          ["--anew", "--workers", workers],
          (child) => child.kill("SIGHUP"),
        );
        assert.deepEqual([status, stderr], [129, ""]);
        assert.match(stdout, /Stopped after step \d+ of 100000/);
        assert.ok(checkpointsOf(join(cwd, "runs/tiny")).length > 0);
      }
    }),
  );

  test("a hang-up is ignored under nohup", onLinux, () =>
    withFolder(runFiles({ steps: "40" }), async (cwd) => {
      // nohup replaces the input of a terminal by a /dev/null that cannot be read.
      const through = ["sh", "-c", 'exec "$@" 0> /dev/null', "sh"];
      const { status } = await living(cwd, [], (child) => child.kill("SIGHUP"), through);
      assert.equal(status, 0);
      assert.equal(reportOf(join(cwd, "runs/tiny")).steps, 40);
    }),
  );

  test("a run that starts alone, continues with two workers and ends alone gives the same weights", () =>
    withFolder(runFiles({ batch: "8", steps: "12" }), async (cwd) => {
      const ends = [
        await train(cwd, "--out", "whole"),
        await train(cwd, "--out", "parts", "--steps", "4"),
        await train(cwd, "--out", "parts", "--steps", "8", "--workers", "2", "--resume"),
        await train(cwd, "--out", "parts", "--resume"),
      ];
      for (const { status, stderr } of ends) assert.equal(status, 0, stderr);
      const [whole, parts] = ["whole", "parts"].map((out) => reportOf(join(cwd, out)));
      assert.equal(parts?.weightsSha256, whole?.weightsSha256);
    }));

  test("files of a run that are links or folders: nothing outside is touched", onPosix, () =>
    withFolder(runFiles(), async (cwd) => {
      assert.equal((await train(cwd, "--steps", "2")).status, 0);
      const out = join(cwd, "runs/tiny");
      writeFileSync(join(cwd, "private"), "mine");
      const kept = readFileSync(join(out, "metrics.jsonl"));
      for (const [name, make] of [
        ["metrics.jsonl", (path: string) => symlinkSync(join(cwd, "private"), path)],
        ["metrics.jsonl", (path: string) => execFileSync("mkfifo", [path])],
        ["model.onnx", (path: string) => execFileSync("mkdir", [path])],
      ] as const) {
        execFileSync("rm", ["-r", join(out, name)]);
        make(join(out, name));
        const { status, stderr } = await train(cwd, "--resume", "--steps", "4");
        assert.equal(status, 1);
        assert.match(stderr, /^lockstep: .*\[IO_FAILED\]/s);
        assert.ok(stderr.includes(name), stderr);
        execFileSync("rm", ["-r", join(out, name)]);
        writeFileSync(join(out, name), kept);
      }
      // A file that is replaced by a rename does not follow a link.
      execFileSync("rm", [join(out, "model.safetensors")]);
      symlinkSync(join(cwd, "private"), join(out, "model.safetensors"));
      const { status, stderr } = await train(cwd, "--resume", "--steps", "4");
      assert.equal(status, 0, stderr);
      assert.equal(readFileSync(join(cwd, "private"), "utf8"), "mine");
      assert.equal(
        metricsOf(out)
          .filter(({ type }) => type === "step")
          .at(-1)?.step,
        4,
      );
    }),
  );

  test("pipes and devices in the place of files are refused, and nothing waits", onPosix, () =>
    withFolder(runFiles(), async (cwd) => {
      execFileSync("mkfifo", [join(cwd, "pipe")]);
      const modules = {
        "tokenizer.ts": 'text("words.txt", { tokenizer: "pipe" })',
        "images.ts": 'idxImages({ images: "/dev/zero", labels: "pipe" })',
        "text.ts": 'text("pipe")',
      };
      const ends: Promise<Ended>[] = ["pipe", "/dev/zero"].flatMap((path) => [
        lockstep(["train", path], { cwd }),
        lockstep(["inspect", path], { cwd }),
      ]);
      for (const [name, data] of Object.entries(modules)) {
        const run = runFiles({ data, name: `"${name}"` })["run.ts"] ?? "";
        writeFileSync(join(cwd, name), run);
        ends.push(lockstep(["train", name], { cwd }));
      }
      for (const { status, stderr } of await Promise.all(ends)) {
        assert.equal(status, 1);
        assert.match(stderr, /^lockstep: .*\[(IO_FAILED|DATA_EMPTY|DATA_FORMAT)\]/s);
      }
    }),
  );

  test("64 open files are enough for a launcher and its workers", onPosix, () =>
    withFolder(runFiles(), async (cwd) => {
      const through = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh"];
      const words = ["train", "run.ts", "--workers", "2"];
      const { status, stderr } = await lockstep(words, { cwd, through });
      assert.equal(status, 0, stderr);
    }),
  );

  test("a run file that throws is reported with the line, also in a file that it imports", () =>
    withFolder(
      {
        "run.ts": 'import { half } from "./half.ts";\nexport default half(3);\n',
        "half.ts": [
          "interface Whole {\n  readonly n: number;\n}\n",
          "export function half(n: number): Whole {",
          '  if (n % 2 !== 0) throw new RangeError("it is odd");',
          "  return { n: n / 2 };\n}\n",
        ].join("\n"),
      },
      async (cwd) => {
        const { stderr } = await train(cwd);
        assert.match(
          stderr,
          /"run\.ts" does not load: it is odd \(half\.ts, line 6:\d+\) \[RUN_FILE\]/,
        );
      },
    ));

  test("a run file of CommonJS gets this very package", () =>
    withFolder(
      {
        ...runFiles(),
        "run.cjs": [
          'const { byteTokenizer, defineRun, mlp, arrays, sgd, tensorFrom } = require("lockstep");',
          "const x = tensorFrom('float32', [4, 1], [1, 2, 3, 4]);",
          "const label = tensorFrom('int32', [4], [0, 1, 0, 1]);",
          "const model = mlp({ inputs: [1], hidden: [2], outputs: 2 });",
          "const data = arrays({ x, label }, { heldOut: 0 });",
          "module.exports = defineRun({ model, data, optimizer: sgd({ learningRate: -1 }), batch: 2, steps: 1 });",
        ].join("\n"),
      },
      async (cwd) => {
        const { stderr } = await lockstep(["train", "run.cjs"], { cwd });
        // An error of a second copy would be reported as one of the run file.
        assert.match(stderr, /learningRate.*\[INVALID_OPTION\]/s);
      },
    ));

  test("without /dev/shm one process trains, and several report what is missing", canUnshare, () =>
    withFolder(runFiles(), async (cwd) => {
      for (const shell of [
        "mount -t tmpfs -o ro,size=1m tmpfs /dev/shm",
        // Only what Node.js needs is left of /dev.
        "mkdir -p dev; mount -t tmpfs tmpfs dev; for d in null zero urandom random full; do touch dev/$d; mount --bind /dev/$d dev/$d; done; ln -sf /proc/self/fd dev/fd; mount --rbind dev /dev",
      ]) {
        const through = inNamespace(shell);
        const of = (workers: string) =>
          lockstep(["train", "run.ts", "--anew", "--workers", workers], { cwd, through });
        const one = await of("1");
        assert.equal(one.status, 0, one.stderr);
        const two = await of("2");
        assert.equal(two.status, 1);
        assert.match(
          two.stderr,
          /^lockstep: Memory cannot be shared in \/dev\/shm.*\[SHARED_MEMORY\]/s,
        );
      }
    }),
  );
});
