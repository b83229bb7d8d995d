/** A worker that lives and does nothing any more: its process shows signs of life, its step does not. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { withFolder } from "../support/folder.ts";
import { reportOf } from "../support/runs.ts";
import { lockstep, runFiles } from "./support.ts";

const files = runFiles({ batch: "4", microBatches: "4", steps: "60" });
const WORDS = ["run.ts", "--threads", "1"];
/** Runs of the engine before the first worker that has made so many starts one without an end. */
const RUNS = 60;
/** The position of the function Run in ONNX Runtime's table of functions. */
const RUN = 9;

/** The first worker that makes so many runs of ONNX Runtime never hears of the end of the next ones. */
function hanging(file: string): string {
  const code = `
    import { openSync } from "node:fs";
    import koffi from ${JSON.stringify(import.meta.resolve("koffi"))};
    const { decode } = koffi;
    let runs = 0, hangs = false, place;
    const isFirst = () => {
      try { openSync(${JSON.stringify(file)}, "wx"); return true; } catch { return false; }
    };
    koffi.decode = (...words) => {
      const found = decode(...words);
      // Run is entry ${RUN} of the table of functions: its address is decoded, then the function.
      if (words[1] === ${RUN * 8} && words[2] === "void *") place = found;
      if (place === undefined || words[0] !== place) return found;
      const async = (...given) => {
        hangs ||= ++runs === ${RUNS} && isFirst();
        if (!hangs) found.async(...given);
      };
      return Object.assign((...given) => found(...given), { async });
    };`;
  return `--import=data:text/javascript,${encodeURIComponent(code)}`;
}

test("a run of the engine that never ends is found, and not the worker that waits for it", () =>
  withFolder(files, async (cwd) => {
    const one = await lockstep(["train", ...WORDS, "--out", "one"], { cwd });
    assert.equal(one.status, 0, one.stderr);
    const env = { NODE_OPTIONS: hanging(join(cwd, "hung")) };
    const words = ["train", ...WORDS, "--workers", "2", "--out", "two"];
    const two = await lockstep(words, { cwd, env });
    assert.equal(two.status, 0, `${two.stdout}\n${two.stderr}`);
    const lost = [...two.stdout.matchAll(/Worker (\d+) .*was lost at step (\d+)(.*)\./g)];
    assert.equal(lost.length, 1, two.stdout);
    assert.match(lost[0]?.[3] ?? "", /a run of its device has not ended for \d+ s/);
    const { history, weightsSha256 } = reportOf(join(cwd, "two"));
    assert.equal(weightsSha256, reportOf(join(cwd, "one")).weightsSha256);
    assert.deepEqual([history.workersLost, history.samplesRepeated], [1, 0]);
  }));
