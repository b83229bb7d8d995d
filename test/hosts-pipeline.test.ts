/**
 * A model of which no machine has all: its stages lie on two machines, which lose a worker, are
 * stopped and continue, and end with the weights, losses and files of one process.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { RunEvent } from "../src/telemetry/index.ts";
import { withFolder } from "./support/folder.ts";
import { type AgentProcess, agentProcess, launch, reportIn, withAgents } from "./support/hosts.ts";
import { checkpointsOf, sharedRun, WORDS } from "./support/runs.ts";

const onLinux = process.platform === "linux" ? {} : { skip: "looks at /proc" };

const staged = sharedRun({ parallel: { pipeline: 2 } });
const files = { "words.txt": WORDS, "gpt.ts": sharedRun({}), "staged.ts": staged };

function firstChild({ child }: AgentProcess): number {
  const path = `/proc/${child.pid}/task/${child.pid}/children`;
  return Number(readFileSync(path, "utf8").trim().split(" ")[0]);
}

test(
  "stages on two machines train, lose a worker, are stopped and resumed, as one process does",
  onLinux,
  () =>
    withFolder(files, (folder) =>
      withAgents([folder], async ([first = ""]) => {
        const root = folder;
        assert.equal(await launch({ hosts: [first], root, out: "one" }), "finished");
        const agent = await agentProcess(folder);
        const texts: string[] = [];
        const controller = new AbortController();
        const groups = { minWorkers: 2, maxWorkers: 2, together: 2, within: 1 };
        const of = { hosts: [first, agent.host], root, file: "staged.ts", ...groups };
        let [hasKilled, isAsked] = [false, false];
        const onEvent = (event: RunEvent) => {
          if (event.type === "membership") texts.push(event.text);
          if (event.type !== "step") return;
          if (event.step === 5 && !hasKilled) {
            hasKilled = true;
            process.kill(firstChild(agent), "SIGKILL");
          } else if (event.step === 9 && !isAsked) {
            isAsked = true;
            controller.abort();
          }
        };
        try {
          assert.equal(await launch({ ...of, onEvent, signal: controller.signal }), "stopped");
          assert.match(texts.join("\n"), /Worker 1 .* was lost at step/);
          assert.match(texts.join("\n"), /goes on from its checkpoint of step 4/);
          assert.ok(checkpointsOf(join(root, "out")).length > 0);
          assert.equal(await launch({ ...of, beginning: "resume" }), "finished");
        } finally {
          await agent.end();
        }
        const [one, found] = [reportIn(folder, "one"), reportIn(folder)];
        assert.equal(found.weightsSha256, one.weightsSha256);
        assert.equal(found.trainLoss, one.trainLoss);
        assert.ok(Math.abs((found.validationLoss ?? 0) - (one.validationLoss ?? 1)) < 1e-6);
        assert.equal(found.sample, one.sample);
        assert.ok(existsSync(join(root, "out", "model.onnx")));
      }),
    ),
);
