/** A worker that is far slower than the others, in a run that excludes such workers. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { withFolder } from "../support/folder.ts";
import { reportOf } from "../support/runs.ts";
import { lockstep, runFiles } from "./support.ts";

const files = runFiles({ batch: "6", microBatches: "6", steps: "60", evaluate: "{ every: 60 }" });
const WORDS = ["run.ts", "--threads", "1"];
/** How much longer each run of the engine takes on the slow worker. */
const DELAY_MS = 10;

/** The place of Run in ONNX Runtime's table of functions. */
const RUN = 9;

/** One of the workers hears of the end of each run of ONNX Runtime later than it is. */
function slowed(file: string): string {
  const code = `
    import { openSync } from "node:fs";
    import koffi from ${JSON.stringify(import.meta.resolve("koffi"))};
    const { decode } = koffi;
    const isFirst = () => {
      try { openSync(${JSON.stringify(file)}, "wx"); return true; } catch { return false; }
    };
    let place;
    if (process.send !== undefined && isFirst()) koffi.decode = (...words) => {
      const found = decode(...words);
      // The address of the function is decoded, then the function.
      if (words[1] === ${RUN * 8} && words[2] === "void *") place = found;
      if (place === undefined || words[0] !== place) return found;
      const async = (...given) => {
        const ended = given.pop();
        found.async(...given, (...result) => setTimeout(() => ended(...result), ${DELAY_MS}));
      };
      return Object.assign((...given) => found(...given), { async });
    };`;
  return `--import=data:text/javascript,${encodeURIComponent(code)}`;
}

test("a worker that stays far below the others leaves the run, and no bit changes", () =>
  withFolder(files, async (cwd) => {
    const one = await lockstep(["train", ...WORDS, "--out", "one"], { cwd });
    assert.equal(one.status, 0, one.stderr);
    const env = { NODE_OPTIONS: slowed(join(cwd, "slow")) };
    const words = ["train", ...WORDS, "--workers", "3", "--exclude-below", "0.3", "--out", "three"];
    const three = await lockstep(words, { cwd, env });
    assert.equal(three.status, 0, `${three.stdout}\n${three.stderr}`);
    assert.match(
      three.stdout,
      /Worker \d .* is asked to leave: it has had \d+% of the speed of the others for 20 steps, and the run excludes workers below 30%/,
    );
    assert.match(three.stdout, /Generation 2 begins after step \d+ with workers \d and \d/);
    const { history, weightsSha256 } = reportOf(join(cwd, "three"));
    assert.equal(weightsSha256, reportOf(join(cwd, "one")).weightsSha256);
    assert.deepEqual([history.workersLost, history.stepsRepeated], [0, 0]);
  }));

test("a part that is none is refused", () =>
  withFolder(files, async (cwd) => {
    const { status, stderr } = await lockstep(["train", ...WORDS, "--exclude-below", "2"], { cwd });
    assert.equal(status, 1);
    assert.match(stderr, /--exclude-below.*from 0 to 0\.9/);
  }));
