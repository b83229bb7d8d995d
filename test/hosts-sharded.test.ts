/**
 * Sharded runs over agents, tested through the command: no host holds parameters, gradients and
 * slots whole, and the weights are those of one process.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { readRangeOf } from "../src/checkpoint/index.ts";
import type { Report, RunEvent } from "../src/telemetry/index.ts";
import { byteLength } from "../src/tensor/index.ts";
import { lockstep } from "./cli/support.ts";
import { withFolder } from "./support/folder.ts";
import { agentProcess, launch, reportIn, token, withAgents } from "./support/hosts.ts";
import { checkpointsOf, newestOf, sharedRun, sourceIn, WORDS } from "./support/runs.ts";

const files = { "words.txt": WORDS, "gpt.ts": sharedRun({}) };

/** The words of the command for two hosts. The test of a stop has zero 3 on a worker of each. */
const SHARINGS: readonly (readonly string[])[] = [
  ["--zero", "1"],
  ["--workers", "2", "--parallel", "data=2,shard=2"],
  ["--workers", "2", "--parallel", "shard=4"],
];

const env = { LOCKSTEP_TOKEN: token };
const words = ["train", "gpt.ts", "--out", "out", "--anew", "--threads", "1"];
/** What one process gives, and the hash of its last checkpoint. */
let expected: Report;
let saved = "";
before(() =>
  withFolder(files, async (folder) => {
    const alone = await lockstep(words, { cwd: folder, env });
    assert.equal(alone.status, 0, alone.stderr);
    expected = reportIn(folder);
    saved = await slotsIn(folder);
  }),
);

/** The run of this folder has given the weights, losses and files of one process. */
function assertAsAlone(folder: string, how: string): void {
  const { weightsSha256: weights, trainLoss, validationLoss, sample } = reportIn(folder);
  assert.equal(weights, expected.weightsSha256, how);
  assert.equal(trainLoss, expected.trainLoss, how);
  assert.ok(Math.abs((validationLoss ?? 0) - (expected.validationLoss ?? 1)) < 1e-6, how);
  assert.equal(sample, expected.sample, how);
  const left = readdirSync(join(folder, "out")).filter((name) => name.endsWith(".tmp"));
  assert.deepEqual(left, [], how);
}

test("a run sharded over two agents gives the weights, losses and files of one process", () =>
  withFolder(files, (folder) =>
    withAgents([folder, folder], async (hosts) => {
      for (const sharing of SHARINGS) {
        const where = ["--hosts", hosts.join(",")];
        const ended = await lockstep([...words, ...where, ...sharing], { cwd: folder, env });
        assert.equal(ended.status, 0, `${sharing.join(" ")}: ${ended.stderr}`);
        assertAsAlone(folder, sharing.join(" "));
      }
    }),
  ));

test("a sharded run over two agents that is stopped and resumed gives, and saves, what one process does", () =>
  withFolder({ ...files, "sharded.ts": sharedRun({ zero: 3, parallel: { shard: 2 } }) }, (folder) =>
    withAgents([folder, folder], async (hosts) => {
      const controller = new AbortController();
      const onEvent = (event: RunEvent) => {
        if (event.type === "step" && event.step === 6) controller.abort();
      };
      const { signal } = controller;
      const sharded = { hosts, root: folder, file: "sharded.ts" };
      assert.equal(await launch({ ...sharded, onEvent, signal }), "stopped");
      assert.equal(await launch({ ...sharded, beginning: "resume" }), "finished");
      assertAsAlone(folder, "resumed");
      assert.equal(await slotsIn(folder), saved);
    }),
  ));

for (const [buddies, what, told] of [
  [true, "the run goes on without it", /Generation 2 begins after step (?:9|10) with worker 0/],
  [
    false,
    "what it alone held is lost, and the run goes on from its last checkpoint",
    /so it goes on from its checkpoint of step 8/,
  ],
] as const) {
  test(`a machine of a sharded run is lost, with buddies ${buddies}: ${what}`, () => {
    const run = sharedRun({ zero: 3, parallel: { shard: 2 }, buddies });
    return withFolder({ ...files, "sharded.ts": run }, (folder) =>
      withAgents([folder], async ([first = ""]) => {
        const root = folder;
        const agent = await agentProcess(folder);
        const texts: string[] = [];
        const onEvent = (event: RunEvent) => {
          if (event.type === "membership") texts.push(event.text);
          if (event.type === "step" && event.step === 9) agent.child.kill("SIGKILL");
        };
        const sharded = { hosts: [first, agent.host], root, file: "sharded.ts" };
        try {
          assert.equal(await launch({ ...sharded, onEvent }), "finished");
        } finally {
          await agent.end();
        }
        assert.match(texts.join("\n"), told);
        assert.equal(reportIn(folder).weightsSha256, expected.weightsSha256);
      }),
    );
  });
}

/** Returns the hash of everything that a checkpoint holds, slots included. */
async function slotsIn(folder: string): Promise<string> {
  const { tensors } = await newestOf(join(folder, "out"));
  const out = join(folder, "out");
  const hash = createHash("sha256");
  const source = await sourceIn(out, checkpointsOf(out).at(-1) ?? 0);
  for (const [name, type] of Object.entries(tensors).sort(([a], [b]) => (a < b ? -1 : 1))) {
    const bytes = new Uint8Array(byteLength(type));
    await readRangeOf(source, name, 0, bytes);
    hash.update(name).update(bytes);
  }
  await source.close();
  return hash.digest("hex");
}
