/** Faults done to workers behind agents: the run ends with the weights of one worker. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { faultsIn } from "../../src/chaos/index.ts";
import { lockstep, runFiles } from "../cli/support.ts";
import { withFolder } from "../support/folder.ts";
import { type AgentProcess, agentProcess, token } from "../support/hosts.ts";
import { reportOf } from "../support/runs.ts";

const onLinux = process.platform === "linux" ? {} : { skip: "agents look at /proc" };
const run = runFiles({
  model: "gpt({ layers: 1, width: 16, heads: 2, context: 16, dropout: 0.1 })",
  batch: "8",
  microBatches: "8",
  steps: "60",
});
const KINDS = ["kill", "segfault", "stop", "slow-worker", "partition", "slow-link", "preempt"];
const FAULTS = KINDS.map((kind, index) => {
  const ms = kind === "partition" ? 500 : undefined;
  return `${JSON.stringify({ step: 5 + 7 * index, worker: index, kind, seconds: 0, ms })}\n`;
}).join("");

test("7 faults done to workers of two agents: the weights of one worker", onLinux, () =>
  withFolder({ ...run, "faults.jsonl": FAULTS }, async (cwd) => {
    const words = ["run.ts", "--threads", "1"];
    const one = await lockstep(["train", ...words, "--out", "one"], { cwd });
    assert.equal(one.status, 0, one.stderr);
    const agents: AgentProcess[] = [];
    try {
      for (const name of ["a", "b"]) {
        mkdirSync(join(cwd, name));
        for (const [file, text] of Object.entries(run)) writeFileSync(join(cwd, name, file), text);
        agents.push(await agentProcess(join(cwd, name)));
      }
      const hosts = agents.map(({ host }) => host).join(",");
      const far = ["--hosts", hosts, "--token", token, "--workers", "2"];
      const chaos = ["chaos", ...words, ...far, "--replay", "faults.jsonl"];
      const { status, stdout, stderr } = await lockstep(chaos, { cwd });
      assert.equal(status, 0, `${stdout}\n${stderr}`);
      const { weightsSha256 } = reportOf(join(cwd, "one"));
      assert.match(stdout, new RegExp(`7 faults.*: \\d+ workers lost.*${weightsSha256}`));
      // Both first workers of `a` are lost in turn, so a machine that leads later may have the report.
      const reports = ["a", "b"].map((name) => join(cwd, name, "runs/tiny"));
      const written = reports.filter((out) => existsSync(join(out, "report.json")));
      assert.ok(written.length > 0, "a machine that led has the report");
      for (const out of written) assert.equal(reportOf(out).weightsSha256, weightsSha256);
      const path = join(cwd, "runs/tiny/chaos.jsonl");
      const done = faultsIn(readFileSync(path, "utf8"), path).map(({ kind }) => kind);
      assert.deepEqual(done, KINDS);

      const flips = await lockstep(["chaos", ...words, ...far, "--kinds", "bit-flip"], { cwd });
      assert.match(flips.stderr, /"bit-flip" is not possible with --hosts/);
    } finally {
      await Promise.all(agents.map((agent) => agent.end()));
    }
  }),
);
