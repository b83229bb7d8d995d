/**
 * Checkpoints of several workers: one that was written in any way of sharing a step is continued in
 * any other, to the weights of a run that never stopped; and what is damaged is found together.
 */
import assert from "node:assert/strict";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { createOrtEngine } from "../src/engine/index.ts";
import { defineRun, type Run } from "../src/run/index.ts";
import type { RunEvent } from "../src/telemetry/index.ts";
import { withFolder } from "./support/folder.ts";
import { simulatedRanks } from "./support/ranks.ts";
import {
  checkpointsOf,
  newestOf,
  reportOf,
  shardsOf,
  sourceIn,
  type Trial,
  textRun,
  tryRun,
  WORDS,
} from "./support/runs.ts";

const engine = createOrtEngine({ threads: 2 });
after(() => engine.close());

const files = { "words.txt": WORDS };
const atStep = (step: number) => (event: RunEvent) => event.type === "step" && event.step === step;
const run = defineRun({ ...textRun.stated, microBatches: 4 });

interface Way {
  readonly ranks: number;
  readonly sharing?: Pick<Run, "zero" | "parallel" | "offload" | "recompute">;
  /** The ranks of each node, if there are several. */
  readonly nodes?: readonly (readonly number[])[];
}

const WAYS: Readonly<Record<string, Way>> = {
  "one worker": { ranks: 1 },
  "two workers": { ranks: 2 },
  "three workers with zero 1": { ranks: 3, sharing: { zero: 1 } },
  "one worker with slots on disk": { ranks: 1, sharing: { offload: "disk" } },
  "four workers with zero 3": { ranks: 4, sharing: { zero: 3 } },
  "two nodes of two, sharded over both": {
    ranks: 4,
    sharing: { parallel: { shard: 4 } },
    nodes: [
      [0, 1],
      [2, 3],
    ],
  },
  "two workers with zero 2": { ranks: 2, sharing: { zero: 2 } },
  "two nodes of two, sharded in each": {
    ranks: 4,
    sharing: { parallel: { data: 2, shard: 2 } },
    nodes: [
      [0, 1],
      [2, 3],
    ],
  },
};

type Asked = Omit<Trial, "engine" | "ranks">;

/** Tries a run in one way, with all its workers in this process. Returns the leader's events. */
async function tryIn(run: Run, { ranks, sharing, nodes }: Way, asked: Asked) {
  const shared = defineRun({ ...run.stated, ...sharing });
  if (ranks === 1) return (await tryRun(shared, { engine, ...asked })).events;
  const { groups, close } = simulatedRanks(engine, ranks, true, nodes);
  const { stopAt, ...others } = asked;
  const tried = await Promise.all(
    groups.map((group, rank) =>
      tryRun(shared, {
        engine,
        ...others,
        ...(rank === 0 && stopAt !== undefined ? { stopAt } : {}),
        ranks: { group, adapt: false },
      }),
    ),
  );
  await close();
  return tried[0]?.events ?? [];
}

const names = Object.keys(WAYS);
for (const [index, name] of names.entries()) {
  const next = names[(index + 1) % names.length] as string;
  test(`${name}, and then ${next}`, () =>
    withFolder(files, async (folder) => {
      const [whole, out] = [join(folder, "whole"), join(folder, "out")];
      await tryRun(run, { engine, folder, out: whole });
      const way = WAYS[name] as Way;
      await tryIn(run, way, { folder, out, stopAt: atStep(4) });
      // The wish to stop goes to the other workers with the next step.
      const last = way.ranks === 1 ? 4 : 5;
      assert.deepEqual(checkpointsOf(out), [3, last]);
      const source = await sourceIn(out, last);
      for (const shard of source.files.keys()) assert.equal(await source.check(shard), undefined);
      const events = await tryIn(run, WAYS[next] as Way, { folder, out, beginning: "resume" });
      const started = events.find((event) => event.type === "started");
      assert.ok(started?.type === "started" && started.firstStep === last);
      assert.equal(reportOf(out).weightsSha256, reportOf(whole).weightsSha256);
      assert.equal(reportOf(out).validationLoss, reportOf(whole).validationLoss);
    }));
}

test("each worker of a node writes about as much, and every tensor is there once", () =>
  withFolder(files, async (folder) => {
    const out = join(folder, "out");
    await tryIn(run, { ranks: 4 }, { folder, out, stopAt: atStep(2) });
    const sizes = shardsOf(out).map((shard) => statSync(shard).size);
    assert.equal(sizes.length, 4);
    const { tensors } = await newestOf(out);
    const held = Object.values(tensors).flatMap(({ parts }) => parts);
    const bytes = held.reduce((sum, { start, end }) => sum + end - start, 0);
    const alone = join(folder, "alone");
    await tryRun(run, { engine, folder, out: alone, stopAt: atStep(2) });
    const before = Object.values((await newestOf(alone)).tensors).flatMap(({ parts }) => parts);
    assert.equal(
      bytes,
      before.reduce((sum, { start, end }) => sum + end - start, 0),
    );
  }));

test("a shard that is damaged lets all workers continue from the checkpoint before", () =>
  withFolder(files, async (folder) => {
    const [whole, out] = [join(folder, "whole"), join(folder, "out")];
    await tryRun(run, { engine, folder, out: whole });
    const way: Way = { ranks: 2, sharing: { zero: 1 } };
    await tryIn(run, way, { folder, out, stopAt: atStep(4) });
    const [, second = ""] = shardsOf(out);
    const bytes = readFileSync(second);
    bytes[bytes.length - 1] = (bytes[bytes.length - 1] as number) ^ 1;
    writeFileSync(second, bytes);
    const events = await tryIn(run, { ranks: 3 }, { folder, out, beginning: "resume" });
    const told = events.flatMap((event) => (event.type === "notice" ? [event.text] : []));
    assert.equal(told.length, 1);
    assert.match(
      told[0] ?? "",
      /step-5" is damaged: its shard ".*shard-00002-of-00002\.safetensors" is not as it was written\. The run continues from the checkpoint of step 3/,
    );
    assert.equal(reportOf(out).weightsSha256, reportOf(whole).weightsSha256);
  }));
