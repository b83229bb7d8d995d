/**
 * The network between two machines is cut and comes back, in network namespaces of this test: only
 * the side of the launcher goes on, and the other one enters again.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { lockstep } from "./cli/support.ts";
import { withFolder } from "./support/folder.ts";
import { agentProcess, files, GPT, reportIn, token, withProcesses } from "./support/hosts.ts";
import { type LossyLink, openLossyLink } from "./support/lossy-link.ts";
import { WORDS } from "./support/runs.ts";

const STEPS = 40;
const machines = { ...files, "a/gpt.ts": GPT, "a/words.txt": WORDS, "b/words.txt": WORDS };

test("the network is cut and heals: one side waits, the other commits nothing, and no bit differs", (t) =>
  withFolder(machines, async (root) => {
    let link: LossyLink;
    try {
      link = await openLossyLink();
    } catch (error) {
      return t.skip((error as Error).message);
    }
    const cwd = join(root, "a");
    const words = ["train", "gpt.ts", "--steps", `${STEPS}`, "--threads", "1"];
    const setting = { cwd, env: { LOCKSTEP_TOKEN: token } };
    try {
      const one = await lockstep([...words, "--out", "one"], setting);
      assert.equal(one.status, 0, one.stderr);
      const starts = (["a", "b"] as const).map((name, end) =>
        agentProcess(join(root, name), {
          words: ["--listen", `${link.hosts[end]}:0`],
          prefix: link.prefix(end as 0 | 1),
        }),
      );
      await withProcesses(starts, async (hosts) => {
        const done = { cut: false, healed: false };
        const members = ["--hosts", hosts.join(","), "--workers", "1", "--min-workers", "2"];
        const { status, stdout, stderr } = await lockstep([...words, ...members, "--out", "out"], {
          ...setting,
          through: link.prefix(0),
          onOutput: (told) => {
            if (!done.cut && told.includes("step 1/")) {
              done.cut = true;
              link.cut();
            }
            if (done.healed || !told.includes("The run waits after step")) return;
            done.healed = true;
            // Who is cut off has nobody that lets it commit, and leads nothing.
            assert.ok(!existsSync(join(root, "b", "out", "metrics.jsonl")));
            link.heal();
          },
        });
        assert.equal(status, 0, `${stdout}\n${stderr}`);
        assert.ok(done.healed, stdout);
        assert.match(stdout, /Worker 1 .*was lost/);
        const { weightsSha256, history } = reportIn(cwd);
        const alone = reportIn(cwd, "one");
        assert.equal(weightsSha256, alone.weightsSha256);
        assert.deepEqual([history.workersLost, history.samplesRepeated], [1, 0]);
      });
    } finally {
      await link.close();
    }
  }));
