/**
 * A rank that leaves in order loses nothing that it has sent: only a rank that waits for more of it
 * has lost it.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { LockstepError } from "../../src/errors.ts";
import { listenTcp } from "../../src/net/index.ts";
import { joinSharedMemory, joinTcp, type Transport } from "../../src/transport/index.ts";
import type { RankTask } from "./child-rank.ts";
import { freePorts } from "./ranks.ts";

const SIZE = 3;
/** Enough turns for every transport to look at its peers several times. */
const ROUND_TRIPS = 5000;

const JOINS: Readonly<Record<string, () => Promise<Transport[]>>> = {
  "shared memory": () =>
    Promise.all(
      Array.from({ length: SIZE }, (_, rank) =>
        joinSharedMemory({ name: `leaving-${process.pid}`, rank, size: SIZE, wait: "poll" }),
      ),
    ),
  tcp: async () => {
    const listen = () => listenTcp({ host: "127.0.0.1", token: "a secret of tests" });
    const listeners = await Promise.all(Array.from({ length: SIZE }, listen));
    const addresses = listeners.map(({ address }) => address);
    const joined = listeners.map((listener, rank) =>
      joinTcp({ listener, addresses, rank, size: SIZE }),
    );
    const transports = await Promise.all(joined);
    for (const listener of listeners) listener.close();
    return transports;
  },
};

for (const [name, join] of Object.entries(JOINS)) {
  test(`${name}: a rank's last message arrives after it has left, and waiting for more names the rank`, async () => {
    const [first, second, third] = (await join()) as [Transport, Transport, Transport];
    try {
      await Promise.all([first.barrier(), second.barrier(), third.barrier()]);
      await third.send(0, Uint8Array.of(7));
      await third.close();
      const byte = new Uint8Array(1);
      for (let trip = 0; trip < ROUND_TRIPS; trip++) {
        await Promise.all([first.receive(1, byte), second.send(0, Uint8Array.of(trip & 255))]);
        await Promise.all([second.receive(0, byte), first.send(1, byte)]);
      }
      await first.receive(2, byte);
      assert.equal(byte[0], 7);
      await assert.rejects(async () => first.receive(2, byte), isLost);
      await assert.rejects(async () => second.receive(0, byte), isLost);
    } finally {
      await Promise.all([first.close(), second.close()]);
    }
  });
}

test("tcp: a rank that aborts and ends is heard by one that writes to it before it reads", async () => {
  const [name, token] = [`leaving-${process.pid}`, "a secret of tests"];
  const listener = await listenTcp({ host: "127.0.0.1", token });
  const [port = 0] = await freePorts("127.0.0.1", 1);
  const addresses = [listener.address, `127.0.0.1:${port}`];
  const group = { transport: "tcp", rank: 1, size: 2, name, addresses, token } as const;
  const fault = { rank: 1, call: 1, do: "abort" } as const;
  const collective = "all-gather by messages";
  const task: RankTask = { ...group, task: "loop", collective, fault };
  const child = fileURLToPath(new URL("./child-rank.js", import.meta.url));
  const started = spawn(process.execPath, [child, JSON.stringify(task)], { stdio: "ignore" });
  const ended = once(started, "close");
  const transport = await joinTcp({ listener, addresses, rank: 0, size: 2, group: name });
  listener.close();
  // Nothing is read meanwhile, as in a long computation.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 700);
  const byte = new Uint8Array(1);
  await assert.rejects(
    async () => {
      for (let times = 0; times < 5; times++) await transport.send(1, byte);
      await transport.receive(1, byte);
    },
    { code: "ABORTED" },
  );
  await transport.close();
  await ended;
});

function isLost(error: unknown): boolean {
  return error instanceof LockstepError && error.code === "PEER_LOST" && error.fields["peer"] === 2;
}
