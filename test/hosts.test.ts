/** Runs over agents, here all on this machine's loopback: the same weights as one process, and failures that name the host. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { startAgent } from "../src/agent/index.ts";
import { AGENT_PROTOCOL } from "../src/launch/agent-messages.ts";
import { launchLocal } from "../src/launch/index.ts";
import type { RunEvent } from "../src/telemetry/index.ts";
import { dialLine, listenTcp, serveLines } from "../src/transport/index.ts";
import { withFolder } from "./support/folder.ts";
import {
  agentProcess,
  files,
  GPT,
  LOCAL,
  launch,
  rejectsWith,
  reportIn,
  token,
  withAgents,
} from "./support/hosts.ts";
import { WORDS } from "./support/runs.ts";
import { type Starvation, watchStarvation } from "./support/starved.ts";

test("1 process, 2 local workers, and 2 agents with 1 and with 2 workers give the same weights", () =>
  withFolder(files, async (folder) => {
    const hashes: string[] = [];
    for (const workers of [1, 2]) {
      await launchLocal({
        file: join(folder, "gpt.ts"),
        overrides: {},
        out: join(folder, "out"),
        beginning: "anew",
        baseDir: folder,
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

test("a stop is made by all hosts after the same step, and is gone on with", () =>
  withFolder(files, (folder) =>
    withAgents([folder, folder], async (hosts) => {
      const root = folder;
      assert.equal(await launch({ hosts, root }), "finished");
      const whole = reportIn(folder).weightsSha256;
      const controller = new AbortController();
      const onEvent = (event: RunEvent) => {
        if (event.type === "step" && event.step === 3) controller.abort();
      };
      const { signal } = controller;
      assert.equal(await launch({ hosts, root, onEvent, signal }), "stopped");
      assert.equal(await launch({ hosts, root, beginning: "resume" }), "finished");
      assert.equal(reportIn(folder).weightsSha256, whole);
    }),
  ));

test("a wrong token is refused, and the host named", () =>
  withFolder(files, (folder) =>
    withAgents([folder], async ([host = ""]) => {
      const running = launch({ hosts: [host], root: folder, token: "another token of tests" });
      await rejectsWith(running, "UNAUTHORIZED", host);
    }),
  ));

test("a port in use is said at the start of an agent", () =>
  withFolder(files, (folder) =>
    withAgents([folder], async ([host = ""]) => {
      const port = Number(host.split(":")[1]);
      await rejectsWith(startAgent({ ...LOCAL, port, folder }), "ADDRESS", host, "in use");
    }),
  ));

test("hosts that cannot be reached are named, all of them", () =>
  withFolder(files, (folder) =>
    withAgents([folder], async ([host = ""]) => {
      const [a, b] = [await closedPort(), await closedPort()];
      const running = launch({ hosts: [a, host, b], root: folder, deadlineMs: 300 });
      await rejectsWith(running, "DEADLINE", a, b);
    }),
  ));

test("hosts whose run file is another or missing are named, and no others", () =>
  withFolder(
    { ...files, "b/gpt.ts": `${GPT}\n// changed`, "b/words.txt": WORDS, "c/words.txt": WORDS },
    (folder) =>
      withAgents([folder, join(folder, "b"), join(folder, "c")], async (hosts) => {
        const [a = "", b = "", c = ""] = hosts;
        await rejectsWith(launch({ hosts: [a, b], root: folder }), "RUN_FILE", b, "another one");
        await rejectsWith(launch({ hosts: [a, c], root: folder }), "FILE_NOT_FOUND", c);
        // Refused jobs leave the agents free.
        assert.equal(
          await launch({ hosts: [a], root: folder, overrides: { steps: 2 } }),
          "finished",
        );
      }),
  ));

test("the same run file that makes another program on one host: the host is named", () =>
  withFolder({ ...files, "b/gpt.ts": GPT, "b/words.txt": WORDS.slice(0, 2000) }, (folder) =>
    withAgents([folder, join(folder, "b")], async (hosts) => {
      const running = launch({ hosts, root: folder });
      await rejectsWith(running, "PROTOCOL", "the data is 118 samples", hosts[1] ?? "");
    }),
  ));

test("run files and folders outside of the agent's folder are refused on both sides", () =>
  withFolder(files, (folder) =>
    withAgents([folder], async (hosts) => {
      const root = folder;
      await rejectsWith(launch({ hosts, root, out: "../out" }), "INVALID_OPTION", "not below");
    }),
  ));

test("an agent that has a job takes no second one, and the first goes on", () =>
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

test("an agent that dies in the middle of a run: its end within a second, naming the host", () =>
  withFolder(files, (folder) =>
    withAgents([folder], async ([first = ""]) => {
      const { child, host } = await agentProcess(folder);
      let since: Starvation | undefined;
      const onEvent = (event: RunEvent) => {
        if (event.type !== "step" || event.step !== 3) return;
        since = watchStarvation();
        child.kill("SIGKILL");
      };
      const overrides = { steps: 1_000_000 };
      const running = launch({ hosts: [first, host], root: folder, overrides, onEvent });
      try {
        await rejectsWith(running, "PEER_LOST", host);
      } finally {
        child.kill("SIGKILL");
      }
      const took = since?.stop() ?? Number.POSITIVE_INFINITY;
      assert.ok(took < 1000, `${took} ms`);
    }),
  ));

test("a launcher that vanishes: the workers stop and save, and the agent is free again", () =>
  withFolder(files, (folder) =>
    withAgents([folder], async ([address = ""]) => {
      const { signal } = new AbortController();
      const line = await dialLine({ address, token, deadlineMs: 5000, signal });
      const gone = new Promise<void>((resolve) => {
        line.handler = {
          message: (value) => {
            if (JSON.stringify(value).includes('"step":3,')) line.close();
            else if (JSON.stringify(value).includes('"listening"')) {
              const { port } = value as { readonly port: number };
              line.send({ v: AGENT_PROTOCOL, kind: "addresses", addresses: [`127.0.0.1:${port}`] });
            }
          },
          closed: () => resolve(),
        };
      });
      line.send(jobMessage(folder));
      await gone;
      const overrides = { steps: 2 };
      await launch({ hosts: [address], root: folder, out: "next", overrides });
      readFileSync(join(folder, "out", "checkpoint.safetensors"));
    }),
  ));

test("garbage, another version and unknown messages end a line, and the agent goes on", () =>
  withFolder(files, (folder) =>
    withAgents([folder], async ([address = ""]) => {
      await garbage(address, Buffer.from("GET / HTTP/1.1\r\n\r\n".repeat(10)));
      const job = jobMessage(folder);
      const cases: readonly [unknown, RegExp][] = [
        [{ ...job, v: 1 }, /version 1 of the messages/],
        [{ ...job, file: "../gpt.ts" }, /file must be a path below/],
        [{ ...job, file: "/etc/passwd" }, /file must be a path below/],
        [{ ...job, workers: 1e9 }, /workers/],
        [{ ...job, more: 1 }, /more/],
        [{ v: AGENT_PROTOCOL, kind: "eval", code: "1" }, /not understood/],
        [{ v: AGENT_PROTOCOL, kind: "stop" }, /no job yet/],
        [null, /version undefined/],
      ];
      for (const [message, expected] of cases) {
        assert.match(JSON.stringify(await answerTo(address, message)), expected);
      }
      const overrides = { steps: 2 };
      assert.equal(await launch({ hosts: [address], root: folder, overrides }), "finished");
    }),
  ));

test("a program that answers like no agent is named", () =>
  withFolder(files, async (folder) => {
    const listener = await listenTcp(LOCAL);
    serveLines(listener, (line) => {
      line.handler = { message: () => line.send({ v: 7 }), closed: () => undefined };
    });
    const hosts = [listener.address];
    await rejectsWith(launch({ hosts, root: folder }), "PROTOCOL", listener.address, "version 7");
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

function jobMessage(folder: string): Readonly<Record<string, unknown>> {
  const sha256 = createHash("sha256")
    .update(readFileSync(join(folder, "gpt.ts")))
    .digest("hex");
  return {
    v: AGENT_PROTOCOL,
    kind: "job",
    file: "gpt.ts",
    sha256,
    out: "out",
    beginning: "anew",
    overrides: { steps: 1_000_000 },
    group: "g",
    firstRank: 0,
    own: 1,
    workers: 1,
  };
}

async function answerTo(address: string, message: unknown): Promise<unknown> {
  const { signal } = new AbortController();
  const line = await dialLine({ address, token, deadlineMs: 5000, signal });
  return new Promise((resolve, reject) => {
    line.handler = { message: resolve, closed: (why) => reject(new Error(why)) };
    line.send(message);
  });
}

function garbage(address: string, bytes: Uint8Array): Promise<void> {
  const [host, port] = address.split(":");
  return new Promise((resolve) => {
    const socket = net.connect(Number(port), host, () => socket.write(bytes));
    socket.on("error", () => undefined);
    socket.on("close", () => resolve());
  });
}
