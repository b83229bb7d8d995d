/** The exit status tells a queue whether the same command may do better when it is started again. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { withFolder } from "../support/folder.ts";
import { lockstep, runFiles } from "./support.ts";

const WORDS = ["train", "run.ts", "--threads", "1", "--workers", "2"];

/** Each worker of a run is killed as soon as it has loaded its job. */
const KILLED = `--import=data:text/javascript,${encodeURIComponent(
  'process.on("message", ({ kind }) => kind === "job" && process.kill(process.pid, "SIGKILL"));',
)}`;

const onLinux = process.platform === "linux" ? {} : { skip: "workers are killed by a signal" };

test("status 75: workers are lost again and again from outside", onLinux, () =>
  withFolder(runFiles(), async (cwd) => {
    const { status, stderr } = await lockstep(WORDS, { cwd, env: { NODE_OPTIONS: KILLED } });
    assert.equal(status, 75, stderr);
    assert.match(stderr, /The run ends, because it was set back \d+ times .*\[PEER_LOST\]/s);
  }),
);

test("status 1: every worker fails by the same error of the run's own", () =>
  withFolder(runFiles({ optimizer: "sgd({ learningRate: 1e30 })" }), async (cwd) => {
    const { status, stderr } = await lockstep(WORDS, { cwd });
    assert.equal(status, 1, stderr);
    assert.match(stderr, /\[NOT_FINITE\]/);
  }));
