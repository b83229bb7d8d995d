/**
 * Workers, agents and strangers that misbehave, tested through the command: status 1, a sentence
 * that names who it was, a code, and all of it within a bound.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { cp, symlink, writeFile } from "node:fs/promises";
import net from "node:net";
import { dirname, join } from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { parseAddress } from "../../src/net/index.ts";
import { withFolder } from "../support/folder.ts";
import { agentProcess, files, GPT, reportIn, token, withProcesses } from "../support/hosts.ts";
import { checkpointsOf } from "../support/runs.ts";
import { type Ended, lockstep } from "./support.ts";

const onLinux = process.platform === "linux" ? {} : { skip: "looks at /proc" };
const env = { LOCKSTEP_TOKEN: token };
const FOREVER = ["--steps", "1000000"];

function train(
  cwd: string,
  words: readonly string[],
  onFirstStep?: (launcher: number) => void,
): Promise<Ended> {
  let seen = false;
  return lockstep(["train", "gpt.ts", "--out", "out", "--anew", "--threads", "1", ...words], {
    cwd,
    env,
    onOutput: (stdout, { pid = 0 }) => {
      if (seen || !stdout.includes("step 1/")) return;
      seen = true;
      onFirstStep?.(pid);
    },
  });
}

function assertFails(ended: Ended, code: string, ...says: readonly (string | RegExp)[]): void {
  assert.equal(ended.status, 1, ended.stderr || ended.stdout);
  assert.ok(ended.stderr.startsWith("lockstep: "), ended.stderr);
  assert.ok(ended.stderr.includes(`[${code}]`), ended.stderr);
  for (const words of says) {
    assert.ok(
      typeof words === "string" ? ended.stderr.includes(words) : words.test(ended.stderr),
      ended.stderr,
    );
  }
}

function childrenOf(pid: number | undefined): number[] {
  const path = `/proc/${pid}/task/${pid}/children`;
  return existsSync(path) ? readFileSync(path, "utf8").trim().split(" ").map(Number) : [];
}

/** Copies this package as if it had another version. Returns the path of its command. */
async function otherVersion(folder: string): Promise<string> {
  let root = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(root, "node_modules"))) root = dirname(root);
  await cp(join(root, "dist"), join(folder, "dist"), { recursive: true });
  await symlink(join(root, "node_modules"), join(folder, "node_modules"));
  const own = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as object;
  await writeFile(join(folder, "package.json"), JSON.stringify({ ...own, version: "99.0.0" }));
  return join(folder, "dist/main.js");
}

describe("bad peers", { concurrency: 2 }, () => {
  test("a run file that differs each time it is executed: all ranks have the launcher's run", () =>
    withFolder(
      { ...files, "gpt.ts": GPT.replace("batch: 8", "seed: process.pid, batch: 8") },
      async (cwd) => {
        const ended = await train(cwd, ["--workers", "3", "--steps", "2"]);
        assert.equal(ended.status, 0, ended.stderr);
      },
    ));

  test("a different version of lockstep on one host: the error names both versions and the host before anything starts", () =>
    withFolder(files, async (cwd) => {
      const main = await otherVersion(join(cwd, "other"));
      await withProcesses([agentProcess(cwd), agentProcess(cwd, { main })], async (hosts) => {
        const ended = await train(cwd, ["--hosts", hosts.join(",")]);
        const says = /made by lockstep \d\S+, but this is lockstep 99\.0\.0\./;
        assertFails(ended, "JOB_VERSION", `On ${hosts[1]}: `, says);
      });
    }));

  test("a wrong token: the error names the host, and garbage before it does the agent no harm", () =>
    withFolder(files, (cwd) =>
      withProcesses([agentProcess(cwd)], async ([host = ""]) => {
        for (const bytes of ["GET / HTTP/1.1\r\n\r\n".repeat(9), "\0".repeat(99_999)]) {
          await knock(host, bytes);
        }
        const wrong = await train(cwd, ["--hosts", host, "--token", "another token of tests"]);
        assertFails(wrong, "UNAUTHORIZED", `${host} has a different token`);
        const right = await train(cwd, ["--hosts", host, "--steps", "2"]);
        assert.equal(right.status, 0, right.stderr);
      }),
    ));

  test("a port in use: the error names it at the start of the agent", () =>
    withFolder(files, (cwd) =>
      withProcesses([agentProcess(cwd)], async ([host = ""]) => {
        const ended = await lockstep(["agent", "--listen", host], { cwd, env });
        assertFails(ended, "ADDRESS", `${host} is in use`);
      }),
    ));

  test("hosts share a run that states no micro-batches", () =>
    withFolder({ ...files, "gpt.ts": GPT.replace("microBatches: 4,", "") }, (cwd) =>
      withProcesses([agentProcess(cwd), agentProcess(cwd)], async (hosts) => {
        const alone = await train(cwd, ["--workers", "1", "--steps", "3"]);
        assert.equal(alone.status, 0, alone.stderr);
        const expected = reportIn(cwd).weightsSha256;
        const shared = await train(cwd, ["--hosts", hosts.join(","), "--steps", "3"]);
        assert.equal(shared.status, 0, shared.stderr);
        assert.equal(reportIn(cwd).weightsSha256, expected);
      }),
    ));

  for (const [how, signal] of [
    ["vanishes", "SIGKILL"],
    ["stops", "SIGSTOP"],
  ] as const) {
    test(`the leading worker of this machine ${how}: the run says so and goes on`, onLinux, () =>
      withFolder(files, async (cwd) => {
        const ended = await train(cwd, ["--workers", "2", "--steps", "200"], (launcher) => {
          process.kill(childrenOf(launcher)[0] as number, signal);
        });
        assert.equal(ended.status, 0, ended.stderr);
        assert.match(ended.stdout, /Worker 0 \(host [^)]+\) was lost at step \d+/);
        assert.match(ended.stdout, /Generation 2 begins after step \d+/);
        assert.equal(reportIn(cwd).steps, 200);
      }),
    );
  }

  test(
    "an agent that stops reading: the run says so, and goes on without its machine",
    onLinux,
    () =>
      withFolder(files, (cwd) =>
        withProcesses([agentProcess(cwd), agentProcess(cwd)], async (hosts, agents) => {
          const ended = await train(cwd, ["--hosts", hosts.join(","), "--steps", "20"], () => {
            agents[1]?.child.kill("SIGSTOP");
          });
          assert.equal(ended.status, 0, ended.stderr);
          assert.ok(ended.stdout.includes(`The agent on ${hosts[1]} is lost: it was silent`));
          assert.equal(reportIn(cwd).workers, 1);
        }),
      ),
  );

  test(
    "a launcher that was stopped itself says so, and goes on from what its agents saved",
    onLinux,
    () =>
      withFolder(files, (cwd) =>
        withProcesses([agentProcess(cwd)], async ([host = ""], [agent]) => {
          let launcher = 0;
          let isAsked = false;
          let news = "";
          agent?.child.stdout?.on("data", (piece: Buffer) => {
            const isFirst = !news.includes("ended.");
            news += piece.toString();
            if (isFirst && news.includes("ended.")) process.kill(launcher, "SIGCONT");
          });
          const words = ["train", "gpt.ts", "--out", "out", "--threads", "1", "--hosts", host];
          const ended = await lockstep([...words, ...FOREVER], {
            cwd,
            env,
            onOutput: (stdout, { pid = 0 }) => {
              if (launcher === 0 && stdout.includes("step 1/")) {
                launcher = pid;
                process.kill(pid, "SIGSTOP");
              }
              if (!isAsked && stdout.includes("Generation 2 begins")) {
                isAsked = true;
                process.kill(pid, "SIGTERM");
              }
            },
          });
          assert.equal(ended.status, 143, ended.stderr);
          assert.match(ended.stdout, /This command itself was stopped, for \d+ s/);
          assert.ok(checkpointsOf(join(cwd, "out")).length > 0, "nothing was saved");
        }),
      ),
  );

  test("a host without a listener, and one that accepts connections and sends nothing, are named", () =>
    withFolder(files, async (cwd) => {
      const taken: net.Socket[] = [];
      const mute = net.createServer((socket) => void taken.push(socket));
      await new Promise<void>((resolve) => mute.listen(0, "127.0.0.1", resolve));
      const { port } = mute.address() as net.AddressInfo;
      try {
        const hosts = ["127.0.0.1:1", `127.0.0.1:${port}`];
        const ended = await train(cwd, ["--hosts", hosts.join(",")]);
        assertFails(
          ended,
          "DEADLINE",
          ...hosts.map((host) => `${host} could not be reached within`),
        );
      } finally {
        mute.close();
        for (const socket of taken) socket.destroy();
      }
    }));
});

/** Sends bytes. Resolves when the other end closes the connection. */
function knock(address: string, bytes: string): Promise<void> {
  const { host, port } = parseAddress(address);
  return new Promise((resolve) => {
    const socket = net.connect(port, host, () => socket.write(bytes, "latin1"));
    socket.on("error", () => undefined);
    socket.on("close", () => resolve());
  });
}
