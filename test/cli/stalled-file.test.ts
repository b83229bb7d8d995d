/** A worker whose disk stands still: its event loop beats, and an operation on a file never ends. */
import assert from "node:assert/strict";
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { withFolder } from "../support/folder.ts";
import { reportOf } from "../support/runs.ts";
import { lockstep } from "./support.ts";

const ROWS = 4_200;
const WIDTH = 16_384;
const RUN = `
  import { defineRun, mlp, npy, sgd } from "lockstep";
  export default defineRun({
    model: mlp({ inputs: ${WIDTH}, hidden: [8], outputs: 4 }),
    data: npy({ x: "x.npy", label: "label.npy" }, { heldOut: 0 }),
    optimizer: sgd({ learningRate: 0.1 }),
    batch: 4, microBatches: 4, steps: 40,
  });`;
const WORDS = ["run.ts", "--threads", "1"];
/** Rows that a worker has read since the first step when one of its reads never ends. */
const READS = 20;

/** A file of zeros that takes no space, and is too long to be kept in memory. */
function sparse(path: string, descr: string, shape: string, bytes: number): void {
  const text = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${shape}, }`;
  const header = `${text.padEnd(117)}\n`;
  const length = Buffer.from([header.length, 0]);
  const begin = [Buffer.from("\x93NUMPY\x01\x00", "latin1"), length, Buffer.from(header)];
  writeFileSync(path, Buffer.concat(begin));
  truncateSync(path, 10 + header.length + bytes);
}

/** The first worker that has read so often never hears of the end of its next reads. */
function hanging(file: string, metrics: string): string {
  const code = `
    import fs, { existsSync, openSync } from "node:fs";
    import { syncBuiltinESMExports } from "node:module";
    const { open } = fs.promises;
    let reads = 0, hangs = false;
    const isFirst = () => {
      try { openSync(${JSON.stringify(file)}, "wx"); return true; } catch { return false; }
    };
    fs.promises.open = async (path, ...rest) => {
      const opened = await open(path, ...rest);
      if (process.send === undefined || !String(path).endsWith("x.npy")) return opened;
      const { read } = opened;
      opened.read = (into, ...at) => {
        if (existsSync(${JSON.stringify(metrics)})) hangs ||= ++reads === ${READS} && isFirst();
        return hangs ? new Promise(() => undefined) : read.call(opened, into, ...at);
      };
      return opened;
    };
    syncBuiltinESMExports();`;
  return `--import=data:text/javascript,${encodeURIComponent(code)}`;
}

test("a worker that waits for a file without an end is lost, and the run names the file", () =>
  withFolder({ "run.ts": RUN }, async (cwd) => {
    sparse(join(cwd, "x.npy"), "<f4", `(${ROWS}, ${WIDTH})`, 4 * ROWS * WIDTH);
    sparse(join(cwd, "label.npy"), "<i8", `(${ROWS},)`, 8 * ROWS);
    const one = await lockstep(["train", ...WORDS, "--out", "one"], { cwd });
    assert.equal(one.status, 0, one.stderr);
    const env = { NODE_OPTIONS: hanging(join(cwd, "hung"), join(cwd, "two", "metrics.jsonl")) };
    const words = ["train", ...WORDS, "--workers", "2", "--out", "two"];
    const two = await lockstep(words, { cwd, env });
    assert.equal(two.status, 0, `${two.stdout}\n${two.stderr}`);
    const lost = [...two.stdout.matchAll(/Worker (\d+) .*was lost at step (\d+)(.*)\./g)];
    assert.equal(lost.length, 1, two.stdout);
    assert.match(lost[0]?.[3] ?? "", /it has waited for \d+ s to read ".*x\.npy"/);
    const { history, weightsSha256 } = reportOf(join(cwd, "two"));
    assert.equal(weightsSha256, reportOf(join(cwd, "one")).weightsSha256);
    assert.deepEqual([history.workersLost, history.samplesRepeated], [1, 0]);
  }));
