/**
 * Runs over agents with TLS: `lockstep agent --tls` and `lockstep train --hosts --tls`, as
 * processes.
 */
import assert from "node:assert/strict";
import net from "node:net";
import { test } from "node:test";
import { dialLine, parseAddress } from "../src/net/index.ts";
import { lockstep } from "./cli/support.ts";
import { withFolder } from "./support/folder.ts";
import {
  agentProcess,
  files,
  launch,
  rejectsWith,
  reportIn,
  token,
  withProcesses,
} from "./support/hosts.ts";

const TLS = { words: ["--listen", "0", "--tls"] };

/** Opens a door before an agent that keeps what goes through. */
async function eavesdropper(address: string) {
  const heard: Buffer[] = [];
  const { host, port } = parseAddress(address);
  const server = net.createServer((near) => {
    const far = net.connect(port, host);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      from.on("data", (bytes) => heard.push(bytes));
      from.on("error", () => to.destroy());
      from.pipe(to);
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    address: `127.0.0.1:${(server.address() as net.AddressInfo).port}`,
    text: () => Buffer.concat(heard).toString("latin1"),
    close: () => server.close(),
  };
}

test("two agents with TLS give the weights of one process, and send nothing in clear", () =>
  withFolder(files, async (folder) => {
    const train = ["train", "gpt.ts", "--out", "out", "--anew"];
    const env = { LOCKSTEP_TOKEN: token };
    const alone = await lockstep([...train, "--threads", "1"], { cwd: folder, env });
    assert.equal(alone.status, 0, alone.stderr);
    const expected = reportIn(folder).weightsSha256;
    await withProcesses([agentProcess(folder, TLS), agentProcess(folder, TLS)], async (hosts) => {
      const door = await eavesdropper(hosts[0] ?? "");
      const list = [door.address, hosts[1]].join(",");
      const shared = await lockstep([...train, "--hosts", list, "--tls"], { cwd: folder, env });
      door.close();
      assert.equal(shared.status, 0, shared.stderr);
      assert.match(shared.stdout, /2 workers of \d+ threads?: micro-batches 2 \+ 2 of 4/);
      assert.equal(reportIn(folder).weightsSha256, expected);
      assert.ok(door.text().length > 1000, "it went through the door");
      assert.doesNotMatch(door.text(), /"kind"|"bytes"|nonce/);
    });
    await withProcesses([agentProcess(folder)], async ([host = ""]) => {
      const door = await eavesdropper(host);
      await launch({ hosts: [door.address], root: folder, overrides: { steps: 2 } });
      door.close();
      assert.match(door.text(), /"kind":"piece"/, "without TLS the door hears everything");
    });
  }));

test("TLS on one side only is reported at once by both sides, and a correct start works after it", () =>
  withFolder(files, (folder) =>
    withProcesses([agentProcess(folder, TLS), agentProcess(folder)], async ([a = "", b = ""]) => {
      const root = folder;
      const words = ["on both sides, or on neither"];
      await rejectsWith(launch({ hosts: [a], root }), "PROTOCOL", `${a} speaks with TLS`, ...words);
      const tls = true;
      await rejectsWith(
        launch({ hosts: [b], root, tls }),
        "PROTOCOL",
        `${b} speaks without TLS`,
        ...words,
      );
      await rejectsWith(launch({ hosts: [a, b], root, tls }), "PROTOCOL", b);
      const overrides = { steps: 2 };
      assert.equal(await launch({ hosts: [a], root, overrides, tls }), "finished");
      assert.equal(await launch({ hosts: [b], root, overrides }), "finished");
    }),
  ));

test("a wrong token under TLS is refused, and the error names the host", () =>
  withFolder(files, (folder) =>
    withProcesses([agentProcess(folder, TLS)], async ([host = ""]) => {
      const running = launch({
        hosts: [host],
        root: folder,
        token: "another token of tests",
        tls: true,
      });
      await rejectsWith(running, "UNAUTHORIZED", host, "a different token");
      const plain = launch({ hosts: [host], root: folder, token: "another token of tests" });
      await rejectsWith(plain, "PROTOCOL", `${host} speaks with TLS`);
    }),
  ));

test("a line with TLS to a foreign program ends with an error", async () => {
  const web = net.createServer((socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"));
  await new Promise<void>((resolve) => web.listen(0, "127.0.0.1", resolve));
  const address = `127.0.0.1:${(web.address() as net.AddressInfo).port}`;
  const { signal } = new AbortController();
  try {
    await rejectsWith(
      dialLine({ address, token, tls: true, deadlineMs: 5000, signal }),
      "PROTOCOL",
      address,
      "not Lockstep's",
    );
  } finally {
    web.close();
  }
});

test("--tls without --hosts is refused", () =>
  withFolder(files, async (folder) => {
    const ended = await lockstep(["train", "gpt.ts", "--tls"], { cwd: folder });
    assert.equal(ended.status, 1);
    assert.match(ended.stderr, /--tls is for --hosts.*\[INVALID_OPTION\]/);
  }));
