/**
 * Checkpoints of workers that come and go are written by all workers that reach the place for them,
 * and are loaded by any other number of workers.
 */
import assert from "node:assert/strict";
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { FolderStore } from "../src/checkpoint/index.ts";
import { withFolder } from "./support/folder.ts";
import { GPT, type Launch, launch, reportIn, withAgents } from "./support/hosts.ts";
import { checkpointsOf, WORDS } from "./support/runs.ts";

const run = GPT.replace("steps: 20", "steps: 6, checkpointEvery: 2, keepLast: 3");
const sharded = run.replace("steps: 6", "zero: 3, steps: 6");

/** Returns the number of shards of each checkpoint, by step. */
async function shardsIn(folder: string): Promise<Record<number, number>> {
  const store = new FolderStore(join(folder, "out/checkpoints"));
  const found: Record<number, number> = {};
  for (const step of checkpointsOf(join(folder, "out"))) {
    const manifest = await store.manifest(step);
    const source = store.source(step, manifest);
    found[step] = manifest.shards.length;
    for (const shard of manifest.shards.keys()) {
      assert.equal(await source.check(shard), undefined);
    }
  }
  return found;
}

/** Lets the run go on from its checkpoint of step 4, and returns the hash of its weights. */
async function resumed(folder: string, options: Launch): Promise<string> {
  for (const name of ["checkpoints/step-6", "report.json"]) {
    rmSync(join(folder, "out", name), { recursive: true });
  }
  const firsts: number[] = [];
  const outcome = await launch({
    ...options,
    beginning: "resume",
    onEvent: (event) => {
      if (event.type === "started") firsts.push(event.firstStep);
    },
  });
  assert.equal(outcome, "finished");
  assert.deepEqual(firsts, [4]);
  return reportIn(folder).weightsSha256;
}

test("workers of two machines with one folder write their shards there; any number loads them", () =>
  withFolder({ "words.txt": WORDS, "gpt.ts": run, "sharded.ts": sharded }, (folder) =>
    withAgents([folder, folder], async (hosts) => {
      const root = folder;
      const both = { hosts, root, file: "sharded.ts" };
      assert.equal(await launch(both), "finished");
      const expected = reportIn(folder).weightsSha256;
      // The last is written by the first worker: the others have left.
      assert.deepEqual(await shardsIn(folder), { 2: 2, 4: 2, 6: 1 });
      const names = readdirSync(join(folder, "out/checkpoints"));
      assert.deepEqual(names.sort(), ["step-2", "step-4", "step-6"]);
      const one = { hosts: hosts.slice(0, 1), root };
      assert.equal(await resumed(folder, one), expected);
      assert.equal(await resumed(folder, { ...one, workers: 3, file: "sharded.ts" }), expected);
    }),
  ));

test("machines with a folder each: the first writes all, and workers of one machine share it", () =>
  withFolder(
    {
      "sharded.ts": sharded,
      "words.txt": WORDS,
      "a/words.txt": WORDS,
      "b/words.txt": WORDS,
    },
    (root) =>
      withAgents([join(root, "a"), join(root, "b")], async (hosts) => {
        assert.equal(await launch({ hosts, root, file: "sharded.ts" }), "finished");
        assert.deepEqual(await shardsIn(join(root, "a")), { 2: 1, 4: 1, 6: 1 });
        assert.deepEqual(checkpointsOf(join(root, "b/out")), []);
        const expected = reportIn(join(root, "a")).weightsSha256;
        const one = { hosts: hosts.slice(0, 1), root, file: "sharded.ts" };
        assert.equal(await launch({ ...one, workers: 2 }), "finished");
        assert.deepEqual(await shardsIn(join(root, "a")), { 2: 2, 4: 2, 6: 1 });
        assert.equal(reportIn(join(root, "a")).weightsSha256, expected);
      }),
  ));
