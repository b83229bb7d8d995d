/**
 * A run that goes on with other axes again and again: ZeRO 2 and 3 together with divided models and
 * sequences. Its losses, and those on held-out samples, are those of one process that never stopped.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, test } from "node:test";
import { createOrtEngine } from "../src/engine/index.ts";
import { defineRun, type Run } from "../src/run/index.ts";
import { withFolder } from "./support/folder.ts";
import { simulatedRanks } from "./support/ranks.ts";
import { metricsOf, reportOf, textRun, tryRun, WORDS } from "./support/runs.ts";

const engine = createOrtEngine({ threads: 2 });
after(() => engine.close());

type Sharing = Pick<Run, "zero" | "parallel" | "offload" | "recompute">;

const WAYS: readonly (Sharing & { readonly nodes?: readonly (readonly number[])[] })[] = [
  { parallel: { shard: 2, tensor: 2 }, offload: "disk" },
  { parallel: { shard: 2, context: 2 }, zero: 2 },
  {},
  // The shards of a part lie on both nodes: the leader collects them for the export.
  {
    parallel: { shard: 2, tensor: 2 },
    nodes: [
      [0, 1],
      [2, 3],
    ],
  },
];
const EACH = 3;

const run = defineRun({
  ...textRun.stated,
  batch: 8,
  microBatches: 4,
  steps: WAYS.length * EACH,
  evaluate: { every: 1, samples: 8 },
  checkpointEvery: EACH,
});

/** All numbers that a run has told of losses, by step. */
function lossesOf(out: string): Map<string, number> {
  const lines = metricsOf(out).filter(({ loss }) => loss !== undefined);
  return new Map(lines.map(({ type, step, loss }) => [`${type} ${step}`, loss as number]));
}

test("a run goes on with any of these axes after any other", () =>
  withFolder({ "words.txt": WORDS }, async (folder) => {
    const [whole, out] = [join(folder, "whole"), join(folder, "out")];
    await tryRun(run, { engine, folder, out: whole });
    for (const [index, { nodes, ...sharing }] of WAYS.entries()) {
      const sizes = Object.values(sharing.parallel ?? {}) as number[];
      const size = sizes.reduce((product, own) => product * own, 1);
      const shared = defineRun({ ...run.stated, ...sharing });
      const simulated = size === 1 ? undefined : simulatedRanks(engine, size, true, nodes);
      const last = (index + 1) * EACH;
      const beginning = index === 0 ? "new" : "resume";
      await Promise.all(
        Array.from({ length: size }, (_, rank) =>
          tryRun(shared, {
            engine,
            folder,
            out,
            beginning,
            ...(rank === 0 && last < run.steps
              ? { stopAt: (event) => event.type === "step" && event.step === last - 1 }
              : {}),
            ...(simulated && { ranks: { group: simulated.groups[rank] as never, adapt: false } }),
          }),
        ),
      );
      await simulated?.close();
    }
    const [wanted, found] = [lossesOf(whole), lossesOf(out)];
    // A run that stops does not evaluate.
    const isThere = (of: string) => of.startsWith("step") || found.has(of);
    const compared = [...wanted].filter(([of]) => isThere(of));
    assert.ok(compared.length >= run.steps + WAYS.length);
    for (const [of, loss] of compared) {
      const own = found.get(of) ?? Number.NaN;
      assert.ok(Math.abs(own - loss) <= 1e-4 * loss, `${of}: ${own}, alone ${loss}`);
    }
    const [before, now] = [whole, out].map((of) => reportOf(of).validationLoss as number);
    assert.ok(Math.abs((now as number) - (before as number)) <= 1e-4 * (before as number));
  }));
