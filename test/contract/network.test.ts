/**
 * Two networks with a slow and lossy link between them: sums and weights are still right, and a
 * dead link is found.
 */
import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { type TestContext, test } from "node:test";
import { lockstep } from "../cli/support.ts";
import { withFolder } from "../support/folder.ts";
import { agentProcess, files, GPT, reportIn, token } from "../support/hosts.ts";
import { type LossyLink, openLossyLink } from "../support/lossy-link.ts";
import { WORDS } from "../support/runs.ts";
import { runRanks } from "./ranks.ts";

/** Skips the test if there can be no such link. */
async function withLink(t: TestContext, body: (link: LossyLink) => Promise<void>): Promise<void> {
  let link: LossyLink;
  try {
    link = await openLossyLink();
  } catch (error) {
    return t.skip(`no lossy link here (${error instanceof Error ? error.message : String(error)})`);
  }
  try {
    await body(link);
    const carried = await link.carried();
    if (carried !== undefined) {
      t.diagnostic(`${carried.passed} packets passed, ${carried.lost} lost`);
      assert.ok(carried.lost > 0, "some were lost");
    }
  } finally {
    await link.close();
  }
}

const ranksOver = ({ hosts, prefix }: LossyLink) => ({
  transport: "tcp" as const,
  size: 2,
  addresses: hosts.map((host, rank) => `${host}:${29_950 + rank}`),
  prefix: (rank: number) => prefix(rank === 0 ? 0 : 1),
});

test("every collective is right over a link that delays and loses packets", (t) =>
  withLink(t, async (link) => {
    const results = await runRanks({
      ...ranksOver(link),
      task: "contract",
      counts: [17, 70_001],
      deadlineMs: 20_000,
    });
    assert.deepEqual(
      results.map((result) => result?.text ?? result?.ok),
      [true, true],
    );
    assert.ok(((await link.carried())?.clear ?? 1) > 0, "without TLS all can be read");
  }));

test("both ranks name the other when the link is dead", (t) =>
  withLink(t, async (link) => {
    const deadlineMs = 5000;
    let cutAt = Number.POSITIVE_INFINITY;
    const results = await runRanks({
      ...ranksOver(link),
      task: "loop",
      deadlineMs,
      fault: { rank: 0, call: 40, do: "nothing" },
      onFault: () => {
        link.cut();
        cutAt = Date.now();
      },
    });
    for (const [rank, result] of results.entries()) {
      assert.deepEqual([result?.code, result?.peer], ["DEADLINE", 1 - rank], result?.text);
      const took = (result?.at ?? 0) - cutAt;
      assert.ok(took < 2 * deadlineMs, `rank ${rank} found it after ${took} ms`);
    }
  }));

const folders = {
  ...files,
  ...Object.fromEntries(
    ["a", "b"].flatMap((host) => [
      [`${host}/gpt.ts`, GPT],
      [`${host}/words.txt`, WORDS],
    ]),
  ),
};

/**
 * Starts an agent with TLS at each end, each with a folder of its own, and the launcher at the
 * first end.
 */
async function trainOver(
  link: LossyLink,
  folder: string,
  words: readonly string[],
  onOutput: (stdout: string, child: ChildProcess) => void = () => undefined,
) {
  const agents = await Promise.all(
    ([0, 1] as const).map((end) =>
      agentProcess(`${folder}/${"ab"[end]}`, {
        prefix: link.prefix(end),
        words: ["--listen", `${link.hosts[end]}:4100`, "--tls"],
      }),
    ),
  );
  try {
    const hosts = ["--hosts", link.hosts.join(","), "--tls", "--threads", "1"];
    return await lockstep(["train", "gpt.ts", "--out", "out", ...hosts, ...words], {
      cwd: `${folder}/a`,
      through: link.prefix(0),
      env: { LOCKSTEP_TOKEN: token },
      onOutput,
    });
  } finally {
    await Promise.all(agents.map((agent) => agent.end()));
  }
}

test("a run over such a link gives the weights of one process, and sends nothing in clear", (t) =>
  withLink(t, (link) =>
    withFolder(folders, async (folder) => {
      const words = ["train", "gpt.ts", "--out", "out", "--threads", "1"];
      const alone = await lockstep(words, { cwd: folder });
      assert.equal(alone.status, 0, alone.stderr);
      const shared = await trainOver(link, folder, []);
      assert.equal(shared.status, 0, shared.stderr);
      const report = reportIn(`${folder}/a`);
      assert.equal(report.workers, 2);
      assert.equal(report.weightsSha256, reportIn(folder).weightsSha256);
      assert.equal((await link.carried())?.clear ?? 0, 0);
    }),
  ));

test("a run whose link goes dead names the unreachable host, and goes on without it until it is stopped", (t) =>
  withLink(t, (link) =>
    withFolder(folders, async (folder) => {
      let [isCut, isAsked] = [false, false];
      const onOutput = (stdout: string, { pid = 0 }: ChildProcess) => {
        if (!isCut && stdout.includes("step 1/")) {
          isCut = true;
          link.cut();
        }
        if (isAsked || !/Generation 2 begins .* with worker 0;/.test(stdout)) return;
        isAsked = true;
        process.kill(pid, "SIGINT");
      };
      const ended = await trainOver(link, folder, ["--steps", "1000000"], onOutput);
      assert.equal(ended.status, 130, ended.stdout + ended.stderr);
      assert.match(ended.stdout, /The agent on 10\.77\.0\.2:4100 is lost.* It is dialed again\./);
      assert.match(ended.stdout, /Saved in /);
    }),
  ));
