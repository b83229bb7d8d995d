/** `lockstep train --listen` and `lockstep join`, as processes. */
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { withFolder } from "../support/folder.ts";
import { files, joinProcess, reportIn, token } from "../support/hosts.ts";
import { WORDS } from "../support/runs.ts";
import { lockstep } from "./support.ts";

const env = { LOCKSTEP_TOKEN: token };

test("a run of this machine waits for machines that join, and ends with the weights of one process", () =>
  withFolder(files, async (cwd) => {
    const words = ["train", "gpt.ts", "--out", "out", "--anew", "--threads", "1"];
    const alone = await lockstep(words, { cwd, env });
    assert.equal(alone.status, 0, alone.stderr);
    const expected = reportIn(cwd).weightsSha256;
    const guest = join(cwd, "guest");
    mkdirSync(guest);
    writeFileSync(join(guest, "words.txt"), WORDS);
    let stranger: ReturnType<typeof lockstep> | undefined;
    let joined: ReturnType<typeof joinProcess> | undefined;
    const shared = await lockstep([...words, "--listen", "0", "--min-workers", "3"], {
      cwd,
      env,
      onOutput: (stdout) => {
        const address = /lockstep join (127\.0\.0\.1:\d+)/.exec(stdout)?.[1];
        if (address === undefined || joined !== undefined) return;
        joined = joinProcess(address, guest, ["--workers", "2"]);
        const wrong = { LOCKSTEP_TOKEN: "another token of tests" };
        stranger = lockstep(["join", address, "--workers", "1"], { cwd: guest, env: wrong });
      },
    });
    assert.equal(shared.status, 0, shared.stderr);
    const { weightsSha256, workers } = reportIn(cwd);
    assert.deepEqual([weightsSha256, workers], [expected, 3]);
    assert.equal(await joined?.ended, 0, "who joined goes with the end of the run");
    const refused = await stranger;
    assert.equal(refused?.status, 1);
    assert.match(refused?.stderr ?? "", /has a different token.*\[UNAUTHORIZED\]/s);
  }));

test("options that do not fit are refused", () =>
  withFolder(files, async (cwd) => {
    for (const [words, expected] of [
      [
        ["--workers", "2", "--max-workers", "2"],
        /With --workers 2, --max-workers 2 lets none stand by/,
      ],
      [["--listen", "0.0.0.0:0"], /--listen needs the address .* that other machines reach/],
      [["--listen", "0", "--min-workers", "9"], /A run of 4 workers cannot wait for 9/],
    ] as const) {
      const ended = await lockstep(["train", "gpt.ts", ...words], { cwd, env });
      assert.equal(ended.status, 1, ended.stdout);
      assert.match(ended.stderr, expected);
    }
  }));
