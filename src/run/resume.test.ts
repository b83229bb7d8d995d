/**
 * Resuming: what a run takes from its checkpoint, what it refuses, and what it detects in a damaged
 * file.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { withFolder } from "../../test/support/folder.ts";
import { checkpointsOf, newestOf, reportOf, shardsOf, tryRun } from "../../test/support/runs.ts";
import { csv } from "../data/index.ts";
import { createOrtEngine } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import { mlp } from "../nn/index.ts";
import { adamw, cosine, sgd } from "../optimizer/index.ts";
import { readSafetensors, writeSafetensors } from "../safetensors/index.ts";
import type { RunEvent } from "../telemetry/index.ts";
import { formatType } from "../tensor/index.ts";
import type { Trainer } from "../train/index.ts";
import { loadCheckpoint } from "./checkpoint.ts";
import type { CheckpointHead } from "./head.ts";
import { defineRun, type RunOptions } from "./run.ts";

const engine = createOrtEngine({ threads: 2 });
after(() => engine.close());

const rows = (count: number, scale = 1) =>
  `x,label\n${Array.from({ length: count }, (_, i) => `${Math.sin(i) * scale},${i % 2}`).join("\n")}\n`;
const files = { "rows.csv": rows(24) };

const options: RunOptions = {
  name: "rows",
  model: mlp({ inputs: [1], hidden: [4], outputs: 2 }),
  data: csv("rows.csv", { heldOut: 0 }),
  optimizer: adamw({ learningRate: 0.01, betas: [0.9, 0.99] }),
  batch: 8,
  steps: 6,
};
const run = defineRun(options);
const atStep = (step: number) => (event: RunEvent) => event.type === "step" && event.step === step;

for (const [name, change] of [
  ["microBatches", { microBatches: 2 }],
  ["learningRate", { optimizer: adamw({ learningRate: 0.02, betas: [0.9, 0.99] }) }],
  ["optimizer", { optimizer: adamw({ learningRate: 0.01, betas: [0.8, 0.99] }) }],
  ["optimizer", { optimizer: adamw({ learningRate: 0.01, betas: [0.9, 0.99], decay: {} }) }],
  ["schedule", { schedule: cosine({}) }],
  ["clipNorm", { clipNorm: 1 }],
  ["reproducible", { reproducible: false }],
  ["model", { model: mlp({ inputs: [1], hidden: [4], outputs: 2, activation: "tanh" }) }],
  ["data", { data: csv("rows.csv", { heldOut: 0.5 }) }],
] as const) {
  test(`a different ${name} is refused by name, or accepted on request and reported`, () =>
    withFolder(files, async (folder) => {
      await tryRun(run, { engine, folder, stopAt: atStep(2) });
      const other = defineRun({ ...options, ...change });
      const resume = { engine, folder, beginning: "resume" } as const;
      await assert.rejects(tryRun(other, resume), {
        code: "CHECKPOINT",
        message: new RegExp(`with ${name}.*--change ${name}\\.`, "s"),
      });
      const { events } = await tryRun(other, { ...resume, changes: [name] });
      const told = events.find((event) => event.type === "changed");
      assert.ok(told?.type === "changed" && told.step === 2);
      assert.ok(told.changes.every((found) => found.name.startsWith(name)));
    }));
}

test("added rows and changed values make different data", () =>
  withFolder(files, async (folder) => {
    await tryRun(run, { engine, folder, stopAt: atStep(2) });
    for (const text of [rows(32), rows(24, 1.5)]) {
      writeFileSync(join(folder, "rows.csv"), text);
      await assert.rejects(tryRun(run, { engine, folder, beginning: "resume" }), {
        message: /with data 24 samples, 0 held out, content \w+, but this run has (24|32) samples/,
      });
    }
  }));

test("a run with a constant learning rate may be prolonged", () =>
  withFolder(files, async (folder) => {
    await tryRun(run, { engine, folder });
    const longer = defineRun({ ...options, steps: 9 });
    const { events } = await tryRun(longer, { engine, folder, beginning: "resume" });
    assert.ok(!events.some(({ type }) => type === "changed"));
    assert.equal(reportOf(join(folder, "out")).steps, 9);
  }));

test("micro-batches that were stated once stay those of the run", () =>
  withFolder(files, async (folder) => {
    const stated = defineRun({ ...options, microBatches: 2 });
    const [whole, out] = [join(folder, "whole"), join(folder, "out")];
    await tryRun(stated, { engine, folder, out: whole });
    await tryRun(stated, { engine, folder, out, stopAt: atStep(3) });
    await tryRun(run, { engine, folder, out, beginning: "resume" });
    assert.equal(reportOf(out).weightsSha256, reportOf(whole).weightsSha256);
  }));

test("after a divergence before the first checkpoint, the run continues with a lower learning rate", () =>
  withFolder({ "rows.csv": rows(24, 1e3) }, async (folder) => {
    const wild = { ...options, optimizer: sgd({ learningRate: 1e25 }), checkpointEvery: 100 };
    await assert.rejects(tryRun(defineRun(wild), { engine, folder }), { code: "NOT_FINITE" });
    const tame = { ...options, optimizer: sgd({ learningRate: 0 }) };
    const { events } = await tryRun(defineRun(tame), { engine, folder, beginning: "resume" });
    const told = events.find((event) => event.type === "changed");
    assert.ok(told?.type === "changed");
    assert.deepEqual(told.changes, [{ name: "learningRate", before: "1e+25", now: "0" }]);
    assert.deepEqual(checkpointsOf(join(folder, "out")).at(-1), 6);
  }));

test("a changed byte, a missing shard and a manifest that was edited are found and named", async (t) => {
  const faults: readonly [string, RegExp, (shard: string, manifest: string) => void][] = [
    [
      "a byte in the middle",
      /its shard ".*shard-00001-of-00001\.safetensors" is not as it was written/,
      (shard) => {
        const bytes = readFileSync(shard);
        const at = Math.floor(bytes.length / 2);
        bytes[at] = (bytes[at] as number) ^ 4;
        writeFileSync(shard, bytes);
      },
    ],
    [
      "a byte less",
      /its shard ".*" is longer or shorter/,
      (shard) => writeFileSync(shard, readFileSync(shard).subarray(1)),
    ],
    ["no shard", /its shard ".*" is missing/, (shard) => rmSync(shard)],
    [
      "a step that was edited",
      /manifest\.json" is damaged: it is not as it was written/,
      (_, manifest) => {
        const text = readFileSync(manifest, "utf8");
        assert.match(text, /"step": 4/);
        writeFileSync(manifest, text.replace('"step": 4', '"step": 5'));
      },
    ],
    [
      "a manifest without its end",
      /manifest\.json" is damaged: it is not a manifest/,
      (_, manifest) => writeFileSync(manifest, readFileSync(manifest).subarray(0, 300)),
    ],
    [
      "no manifest",
      /step-4" is damaged: it has no manifest\.json/,
      (_, manifest) => rmSync(manifest),
    ],
  ];
  for (const [name, words, spoil] of faults) {
    await t.test(name, () =>
      withFolder(files, async (folder) => {
        const [out, whole] = [join(folder, "out"), join(folder, "whole")];
        await tryRun(run, { engine, folder, out: whole });
        const often = defineRun({ ...options, checkpointEvery: 2 });
        await tryRun(often, { engine, folder, out, stopAt: atStep(4) });
        assert.deepEqual(checkpointsOf(out), [2, 4]);
        const [shard = ""] = shardsOf(out);
        spoil(shard, join(out, "checkpoints/step-4/manifest.json"));
        const resume = { engine, folder, out, beginning: "resume" } as const;
        const { events } = await tryRun(run, resume);
        const told = events.flatMap((event) => (event.type === "notice" ? [event.text] : []));
        assert.equal(told.length, 1);
        assert.match(told[0] ?? "", words);
        assert.match(told[0] ?? "", /continues from the checkpoint of step 2, .*aside-step-4/);
        const started = events.find((event) => event.type === "started");
        assert.ok(started?.type === "started" && started.firstStep === 2);
        assert.ok(existsSync(join(out, "checkpoints/aside-step-4")));
        assert.equal(reportOf(out).weightsSha256, reportOf(whole).weightsSha256);
      }),
    );
  }
});

test("without another checkpoint a damaged one is refused, and nothing is changed", () =>
  withFolder(files, async (folder) => {
    const out = join(folder, "out");
    await tryRun(run, { engine, folder, stopAt: atStep(1) });
    const [shard = ""] = shardsOf(out);
    writeFileSync(shard, lastByteChanged(readFileSync(shard)));
    const before = readdirSync(out, { recursive: true }).map(String).sort();
    await assert.rejects(tryRun(run, { engine, folder, beginning: "resume" }), {
      code: "CHECKPOINT",
      message: /step-1" is damaged: its shard .* is not as it was written.*--anew/s,
    });
    assert.deepEqual(readdirSync(out, { recursive: true }).map(String).sort(), before);
  }));

test("where none of several checkpoints is whole, the error says so and names the newest", () =>
  withFolder(files, async (folder) => {
    const out = join(folder, "out");
    const often = defineRun({ ...options, checkpointEvery: 1 });
    await tryRun(often, { engine, folder, stopAt: atStep(2) });
    assert.deepEqual(checkpointsOf(out), [1, 2]);
    for (const step of [1, 2]) rmSync(join(out, `checkpoints/step-${step}/manifest.json`));
    await assert.rejects(tryRun(run, { engine, folder, beginning: "resume" }), {
      code: "CHECKPOINT",
      message: /None of the 2 checkpoints .* can be used. The newest: .*step-2" is damaged: it has/,
    });
    assert.deepEqual(checkpointsOf(out), [1, 2], "they stay");
  }));

test("the newest checkpoints are kept, and those of every so many steps", () =>
  withFolder(files, async (folder) => {
    const out = join(folder, "out");
    const kept = { ...options, steps: 11, checkpointEvery: 1, keepLast: 2, keepEvery: 4 };
    const { events } = await tryRun(defineRun(kept), { engine, folder });
    assert.deepEqual(checkpointsOf(out), [4, 8, 10, 11]);
    assert.equal(events.filter(({ type }) => type === "checkpoint").length, 11);
    const { position, seed, identity } = await newestOf(out);
    assert.deepEqual([position, seed, identity["batch"]], [88, 1, "8"]);
  }));

test("where free memory has no room for a copy, training waits for a checkpoint, and a notice says so", () =>
  withFolder(files, async (folder) => {
    const often = defineRun({ ...options, checkpointEvery: 1 });
    const { events } = await tryRun(often, { engine, folder, freeMemory: () => 100 });
    const told = events.flatMap((event) => (event.type === "notice" ? [event.text] : []));
    assert.deepEqual(told, [
      "Checkpoints are written between two steps, because free memory has no room for a copy of 1 MB.",
    ]);
    assert.deepEqual(
      events.flatMap((event) => (event.type === "checkpoint" ? [event.step] : [])),
      [1, 2, 3, 4, 5, 6],
    );
  }));

function lastByteChanged(bytes: Uint8Array): Uint8Array {
  return bytes.map((byte, at) => (at === bytes.length - 1 ? byte ^ 1 : byte));
}

/** Writes the newest checkpoint as earlier versions did. */
async function asOldFile(out: string, metadata: Readonly<Record<string, string>>): Promise<void> {
  const [shard = ""] = shardsOf(out);
  const { tensors } = await readSafetensors(shard);
  rmSync(join(out, "checkpoints"), { recursive: true });
  await writeSafetensors(join(out, "checkpoint.safetensors"), tensors, metadata);
}

test("a checkpoint of an older version is resumed, with a warning about what it does not record", () =>
  withFolder(files, async (folder) => {
    const [out, whole] = [join(folder, "out"), join(folder, "whole")];
    await tryRun(run, { engine, folder, out: whole });
    await tryRun(run, { engine, folder, stopAt: atStep(2) });
    const old = { format: "lockstep-checkpoint-1", step: "2", seconds: "1", trainLoss: "1" };
    await asOldFile(out, { ...old, seed: "1", batch: "8", optimizer: "adamw" });
    const path = join(out, "checkpoint.safetensors");
    const { tensors } = await readSafetensors(path);
    await writeSafetensors(path, tensors, { ...old, seed: "2", batch: "8", optimizer: "adamw" });
    const resume = { engine, folder, beginning: "resume" } as const;
    await assert.rejects(tryRun(run, resume), { message: /with seed 2, but this run has 1/ });
    await writeSafetensors(path, tensors, { ...old, seed: "1", batch: "8", optimizer: "adamw" });
    const { events } = await tryRun(run, resume);
    const notice = events.find((event) => event.type === "notice");
    assert.ok(notice?.type === "notice" && /older version/.test(notice.text));
    assert.equal(reportOf(out).weightsSha256, reportOf(whole).weightsSha256);
    assert.ok(!existsSync(path), "newer checkpoints have taken its place");
  }));

test("the one file of the version before is resumed after its hashes were compared", () =>
  withFolder(files, async (folder) => {
    const [out, whole] = [join(folder, "out"), join(folder, "whole")];
    await tryRun(run, { engine, folder, out: whole });
    await tryRun(run, { engine, folder, stopAt: atStep(2) });
    const { identity } = await newestOf(out);
    const [shard = ""] = shardsOf(out);
    const { tensors } = await readSafetensors(shard);
    const hashes = [...tensors].map(([name, { dtype, shape, bytes }]) => {
      const type = formatType({ dtype, shape });
      return [name, createHash("sha256").update(type).update(bytes).digest("hex")];
    });
    const said: Record<string, string> = {
      format: "lockstep-checkpoint-2",
      step: "2",
      seconds: "1",
      trainLoss: "1",
      diverged: "false",
      identity: JSON.stringify(identity),
      hashes: JSON.stringify(Object.fromEntries(hashes)),
    };
    const texts = Object.keys(said)
      .sort()
      .flatMap((name) => [name, said[name] ?? ""]);
    const hash = createHash("sha256");
    for (const text of texts) hash.update(`${text.length}:${text};`);
    await asOldFile(out, { ...said, sha256: hash.digest("hex") });
    const path = join(out, "checkpoint.safetensors");
    const good = readFileSync(path);
    const resume = { engine, folder, beginning: "resume" } as const;
    writeFileSync(path, lastByteChanged(good));
    await assert.rejects(tryRun(run, resume), { code: "CHECKPOINT", message: /is damaged/ });
    const edited = Buffer.from(good);
    edited[good.indexOf('"step":"2"') + 8] = "3".charCodeAt(0);
    writeFileSync(path, edited);
    await assert.rejects(tryRun(run, resume), { code: "CHECKPOINT", message: /its head/ });
    writeFileSync(path, good);
    const { events } = await tryRun(run, resume);
    assert.ok(!events.some((event) => event.type === "notice"));
    assert.equal(reportOf(out).weightsSha256, reportOf(whole).weightsSha256);
  }));

test("after a shard that cannot be read, nothing is written into memory any more", async () => {
  const shape = [3 * 2 ** 22];
  const parts = [{ shard: 0, start: 0, end: 3 * 2 ** 22, from: 0 }];
  let [isOver, late] = [false, 0];
  const head = {
    step: 1,
    source: {
      tensors: new Map([["parameters/w", { dtype: "uint8", shape, parts }]]),
      read: async (_: number, start: number) => {
        if (start === 0) throw new LockstepError("FILE_CORRUPT", "It is cut.");
        await turn();
        await turn();
      },
      close: async () => undefined,
    },
  };
  const trainer = {
    parts: () => ({
      list: () => [{ name: "parameters/w", dtype: "uint8", shape }],
      own: () => [{ name: "parameters/w", from: 0, to: 3 * 2 ** 22 }],
      write: () => {
        if (isOver) late += 1;
      },
    }),
  };
  const loading = loadCheckpoint(trainer as unknown as Trainer, head as unknown as CheckpointHead);
  await assert.rejects(loading, { code: "FILE_CORRUPT" });
  isOver = true;
  for (let turns = 0; turns < 5; turns++) await turn();
  assert.equal(late, 0);
});
