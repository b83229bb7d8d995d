/**
 * Runs over agents, here all on this machine's loopback: the weights of one process, and failures
 * that name the host.
 */
import assert from "node:assert/strict";
import net from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { startAgent } from "../src/agent/index.ts";
import { launchLocal } from "../src/launch/index.ts";
import { listenTcp, serveLines } from "../src/net/index.ts";
import { AGENT_PROTOCOL } from "../src/protocol/agent-messages.ts";
import type { RunEvent } from "../src/telemetry/index.ts";
import { withFolder } from "./support/folder.ts";
import {
  answerTo,
  dial,
  files,
  GPT,
  jobMessage,
  LOCAL,
  launch,
  offer,
  rejectsWith,
  reportIn,
  withAgents,
} from "./support/hosts.ts";
import { jobFolderOf, jobOfFile } from "./support/jobs.ts";
import { checkpointsOf, WORDS } from "./support/runs.ts";

test("1 process, 2 local workers, and 2 agents with 1 and with 2 workers give the same weights", () =>
  withFolder(files, async (folder) => {
    const hashes: string[] = [];
    for (const workers of [1, 2]) {
      await launchLocal({
        job: () => jobFolderOf({ file: join(folder, "gpt.ts") }),
        roots: ["/"],
        overrides: {},
        out: join(folder, "out"),
        beginning: "anew",
        workers,
        threads: 1,
        onEvent: () => undefined,
        signal: new AbortController().signal,
      });
      hashes.push(reportIn(folder).weightsSha256);
    }
    await withAgents([folder, folder], async (hosts) => {
      for (const workers of [1, 2]) {
        const events: RunEvent[] = [];
        const onEvent = (event: RunEvent) => void events.push(event);
        assert.equal(await launch({ hosts, root: folder, workers, onEvent }), "finished");
        assert.equal(reportIn(folder).workers, 2 * workers);
        assert.equal(events.filter(({ type }) => type === "step").length, 20);
        hashes.push(reportIn(folder).weightsSha256);
      }
    });
    assert.equal(new Set(hashes).size, 1, hashes.join(" "));
  }));

test("all hosts stop after the same step, and the run can be resumed", () =>
  withFolder(files, (folder) =>
    withAgents([folder, folder], async (hosts) => {
      // The stop takes some steps to reach all hosts.
      const shared = { hosts, root: folder, overrides: { steps: 200 } };
      assert.equal(await launch(shared), "finished");
      const whole = reportIn(folder).weightsSha256;
      const controller = new AbortController();
      const onEvent = (event: RunEvent) => {
        if (event.type === "step" && event.step === 3) controller.abort();
      };
      const { signal } = controller;
      assert.equal(await launch({ ...shared, onEvent, signal }), "stopped");
      assert.equal(await launch({ ...shared, beginning: "resume" }), "finished");
      assert.equal(reportIn(folder).weightsSha256, whole);
    }),
  ));

test("a wrong token is refused, and the error names the host", () =>
  withFolder(files, (folder) =>
    withAgents([folder], async ([host = ""]) => {
      const running = launch({ hosts: [host], root: folder, token: "another token of tests" });
      await rejectsWith(running, "UNAUTHORIZED", host);
    }),
  ));

test("a port in use is reported at the start of an agent", () =>
  withFolder(files, (folder) =>
    withAgents([folder], async ([host = ""]) => {
      const port = Number(host.split(":")[1]);
      await rejectsWith(startAgent({ ...LOCAL, port, folder }), "ADDRESS", host, "in use");
    }),
  ));

test("all hosts that cannot be reached are named", () =>
  withFolder(files, (folder) =>
    withAgents([folder], async ([host = ""]) => {
      const [a, b] = [await closedPort(), await closedPort()];
      const running = launch({ hosts: [a, host, b], root: folder, deadlineMs: 300 });
      await rejectsWith(running, "DEADLINE", a, b);
    }),
  ));

test("hosts need only the data; one whose data differs or is missing is named, and no others", () =>
  withFolder(
    { ...files, "a/words.txt": WORDS, "b/words.txt": WORDS.slice(0, 2000), "c/none.txt": "" },
    (folder) =>
      withAgents(
        ["a", "b", "c"].map((name) => join(folder, name)),
        async (hosts) => {
          const [a = "", b = "", c = ""] = hosts;
          const root = folder;
          const differs = launch({ hosts: [a, b], root });
          await rejectsWith(differs, "DATA_DIFFERS", b, "The data here is 118 samples");
          await rejectsWith(launch({ hosts: [a, c], root }), "DATA_EMPTY", c, "words.txt");
          // The agents are free after failed jobs.
          const overrides = { steps: 2 };
          assert.equal(await launch({ hosts: [a], root, overrides }), "finished");
          reportIn(join(folder, "a"));
        },
      ),
  ));

test("a launcher without data makes the job without it, and hosts compare theirs", () =>
  withFolder(
    { "gpt.ts": GPT, "a/words.txt": WORDS.repeat(25), "b/words.txt": WORDS.repeat(24) },
    (folder) =>
      withAgents(
        ["a", "a", "b"].map((name) => join(folder, name)),
        async ([first = "", second = "", other = ""]) => {
          const root = folder;
          assert.equal(await launch({ hosts: [first, second], root }), "finished");
          const running = launch({ hosts: [first, other], root });
          await rejectsWith(running, "PROTOCOL", "worker 1 would run", "the data is", other);
        },
      ),
  ));

test("an agent with several data roots finds the data in the one that has it", () =>
  withFolder({ ...files, "agent/x": "", "far/words.txt": WORDS }, async (folder) => {
    const dataRoots = ["agent", "far"].map((name) => join(folder, name));
    const agent = await startAgent({ ...LOCAL, folder: join(folder, "agent"), dataRoots });
    try {
      const running = launch({ hosts: [agent.address], root: folder, overrides: { steps: 2 } });
      assert.equal(await running, "finished");
    } finally {
      await agent.close();
    }
  }));

test("data and run folders outside the roots are refused when the job is made", () =>
  withFolder(files, (folder) =>
    withAgents([folder], async (hosts) => {
      const root = folder;
      await rejectsWith(launch({ hosts, root, out: "../out" }), "INVALID_OPTION", "not below");
      const outside = launch({ hosts, root: join(root, "deep"), file: "../gpt.ts" });
      await rejectsWith(outside, "DATA_PLACE", "not below");
    }),
  ));

test("an agent with a job refuses a second one, and the first continues", () =>
  withFolder(files, (folder) =>
    withAgents([folder], async (hosts) => {
      let second: Promise<void> | undefined;
      const onEvent = (event: RunEvent) => {
        if (event.type !== "step" || second !== undefined) return;
        second = rejectsWith(
          launch({ hosts, root: folder, out: "b" }),
          "AGENT_BUSY",
          hosts[0] ?? "",
        );
      };
      const overrides = { steps: 300 };
      assert.equal(await launch({ hosts, root: folder, overrides, onEvent }), "finished");
      await second;
    }),
  ));

test("a launcher that vanishes: the workers stop and save, and the agent is free again", () =>
  withFolder(files, (folder) =>
    withAgents([folder], async ([address = ""]) => {
      const job = await jobOfFile({ file: join(folder, "gpt.ts"), root: folder });
      const line = await dial(address);
      const gone = offer(
        line,
        jobMessage(job, { overrides: { steps: 1_000_000 } }),
        job,
        (value) => {
          if (JSON.stringify(value).includes('"step":3,')) line.close();
          const send = (message: object) => line.send({ v: AGENT_PROTOCOL, ...message });
          if (value.kind === "accepted") send({ kind: "start", worker: 0 });
          const { port } = value.message ?? {};
          if (port === undefined) return;
          const members = [{ node: 0, address: `127.0.0.1:${port}` }];
          const form = { kind: "form", generation: 1, rank: 0, members, hasBegun: false };
          send({ kind: "tell", worker: 0, message: form });
        },
      );
      await gone;
      const overrides = { steps: 2 };
      await launch({ hosts: [address], root: folder, out: "next", overrides });
      assert.ok(checkpointsOf(join(folder, "out")).length > 0);
    }),
  ));

test("a launcher that vanishes while it sends its job leaves the agent free, and no files", () =>
  withFolder(files, (folder) =>
    withAgents([folder], async ([address = ""]) => {
      const job = await jobOfFile({ file: join(folder, "gpt.ts"), root: folder });
      const line = await dial(address);
      await new Promise<void>((resolve) => {
        line.handler = {
          message: () => {
            line.send({ v: AGENT_PROTOCOL, kind: "piece", bytes: "AAAA" });
            line.close();
            resolve();
          },
          closed: () => undefined,
        };
        line.send(jobMessage(job));
      });
      const overrides = { steps: 2 };
      assert.equal(await launch({ hosts: [address], root: folder, overrides }), "finished");
    }),
  ));

test("garbage, a different version and unknown messages end a line, and the agent stays usable", () =>
  withFolder(files, (folder) =>
    withAgents([folder], async ([address = ""]) => {
      await garbage(address, Buffer.from("GET / HTTP/1.1\r\n\r\n".repeat(10)));
      const job = jobMessage(await jobOfFile({ file: join(folder, "gpt.ts"), root: folder }));
      const cases: readonly [unknown, RegExp][] = [
        [{ ...job, v: 1 }, /version 1 of the messages/],
        [{ ...job, out: "../out" }, /out must be a path below/],
        [{ ...job, out: "/etc/passwd" }, /out must be a path below/],
        [{ ...job, files: [{ name: "../job.json", bytes: 1 }] }, /files\.0\.name/],
        [{ ...job, files: [{ name: "job.json", bytes: 2 ** 50 }] }, /takes \d+ at most/],
        [{ ...job, own: 1e9 }, /own/],
        [{ ...job, more: 1 }, /more/],
        [{ v: AGENT_PROTOCOL, kind: "eval", code: "1" }, /not understood/],
        [{ v: AGENT_PROTOCOL, kind: "start", worker: 0 }, /no job yet/],
        [{ v: AGENT_PROTOCOL, kind: "end" }, /no job yet/],
        [{ v: AGENT_PROTOCOL, kind: "piece", bytes: "AAAA" }, /no job yet/],
        [{ v: AGENT_PROTOCOL, kind: "piece", bytes: "A A" }, /base64/],
        [null, /version undefined/],
      ];
      for (const [message, expected] of cases) {
        assert.match(await answerTo(address, message), expected);
      }
      const overrides = { steps: 2 };
      assert.equal(await launch({ hosts: [address], root: folder, overrides }), "finished");
    }),
  ));

test("a program that does not answer like an agent is named", () =>
  withFolder(files, async (folder) => {
    const other = AGENT_PROTOCOL + 1;
    const listener = await listenTcp(LOCAL);
    serveLines(listener, (line) => {
      line.handler = { message: () => line.send({ v: other }), closed: () => undefined };
    });
    const hosts = [listener.address];
    const words = [listener.address, `version ${other}`];
    await rejectsWith(launch({ hosts, root: folder }), "PROTOCOL", ...words);
    listener.close();
    const web = net.createServer((socket) =>
      socket.end("HTTP/1.1 400 Bad Request\r\n\r\n".repeat(9)),
    );
    await new Promise<void>((resolve) => web.listen(0, "127.0.0.1", resolve));
    const { port } = web.address() as net.AddressInfo;
    const running = launch({ hosts: [`127.0.0.1:${port}`], root: folder, deadlineMs: 300 });
    try {
      await rejectsWith(running, "PROTOCOL", `:${port}`, "not Lockstep's");
    } finally {
      web.close();
    }
  }));

async function closedPort(): Promise<string> {
  const listener = await listenTcp(LOCAL);
  listener.close();
  return listener.address;
}

function garbage(address: string, bytes: Uint8Array): Promise<void> {
  const [host, port] = address.split(":");
  return new Promise((resolve) => {
    const socket = net.connect(Number(port), host, () => socket.write(bytes));
    socket.on("error", () => undefined);
    socket.on("close", () => resolve());
  });
}
