import assert from "node:assert/strict";
import { test } from "node:test";
import { watched } from "../files/index.ts";
import { ProgressMeter } from "./progress.ts";

/** A meter, and runs, waits and operations on files that begin and end when they are told to. */
function meter() {
  const runs = { begun: 0, ended: 0 };
  const progress = new ProgressMeter(runs);
  const operation = (path: string, doing: "reading" | "writing") => {
    let finish = () => undefined as void;
    const what = () =>
      new Promise<void>((resolve) => {
        finish = resolve;
      });
    const done = watched(path, doing, what);
    return () => {
      finish();
      return done;
    };
  };
  return { runs, progress, waits: progress.waits, operation };
}

test("a worker that waits for files names the one that it waits for longest", async () => {
  const { progress, operation } = meter();
  assert.deepEqual(progress.look(0), { doing: "other", stillMs: 0, file: undefined });
  const first = operation("/data/a.txt", "reading");
  const second = operation("/data/b.txt", "writing");
  assert.deepEqual(progress.look(250), { doing: "reading", stillMs: 0, file: "/data/a.txt" });
  assert.deepEqual(progress.look(500), { doing: "reading", stillMs: 250, file: "/data/a.txt" });
  await first();
  assert.deepEqual(progress.look(750), { doing: "writing", stillMs: 0, file: "/data/b.txt" });
  await second();
  assert.equal(progress.look(1000).doing, "other");
  progress.close();
});

test("a run that begins is progress, however many operations on files there were before", async () => {
  const { runs, progress, operation } = meter();
  await operation("/data/a.txt", "reading")();
  progress.look(0);
  assert.equal(progress.look(1_000).stillMs, 1_000);
  runs.begun = 2;
  runs.ended = 0;
  assert.deepEqual(progress.look(1_250), { doing: "computing", stillMs: 0, file: undefined });
  progress.close();
});

test("a file that is written beside a run or a wait hides neither", async () => {
  const { runs, waits, progress, operation } = meter();
  runs.begun += 1;
  progress.look(0);
  const saving = operation("/runs/a/shard", "writing");
  assert.deepEqual(progress.look(250), { doing: "computing", stillMs: 250, file: undefined });
  runs.ended += 1;
  waits.begun += 1;
  assert.deepEqual(progress.look(500), { doing: "waiting", stillMs: 0, file: undefined });
  await saving();
  assert.equal(progress.look(750).stillMs, 250);
  progress.close();
});
