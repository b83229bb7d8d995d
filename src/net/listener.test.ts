import assert from "node:assert/strict";
import net from "node:net";
import { test } from "node:test";
import { joinTcp } from "../transport/tcp/tcp.ts";
import { parseAddress } from "./address.ts";
import { listenTcp } from "./listener.ts";

const hasCode = (code: string) => (error: unknown) => (error as { code?: string }).code === code;
const here = { host: "127.0.0.1", token: "a secret of tests" };

test("addresses are read strictly", () => {
  assert.deepEqual(parseAddress("[::1]:80"), { host: "::1", port: 80 });
  assert.deepEqual(parseAddress("node-3.local:0"), { host: "node-3.local", port: 0 });
  for (const text of ["", "host", "::1:80", "host:99999", "host:-1", "a b:1", "[::1]"]) {
    assert.throws(() => parseAddress(text), hasCode("ADDRESS"), text);
  }
});

test("a port in use and an address of another machine give errors that name them", async () => {
  const first = await listenTcp(here);
  const { port } = parseAddress(first.address);
  await assert.rejects(listenTcp({ ...here, port }), hasCode("ADDRESS"));
  await assert.rejects(listenTcp({ ...here, host: "192.0.2.1" }), hasCode("ADDRESS"));
  first.close();
});

test("a connection that sends garbage is closed, and the group still meets", async () => {
  const listeners = await Promise.all([listenTcp(here), listenTcp(here)]);
  const addresses = listeners.map(({ address }) => address);
  const { port } = parseAddress(addresses[0] ?? "");
  const closed = await Promise.all(
    ["GET / HTTP/1.1\r\n\r\n".repeat(10), "\0".repeat(100_000), "SL\x01\x10".repeat(50)].map(
      (garbage) =>
        new Promise<boolean>((resolve) => {
          const socket = net.connect(port, "127.0.0.1", () => socket.write(garbage, "latin1"));
          socket.on("error", () => undefined);
          socket.on("close", () => resolve(true));
          socket.resume();
        }),
    ),
  );
  assert.deepEqual(closed, [true, true, true]);
  const joined = await Promise.all(
    listeners.map((listener, rank) =>
      joinTcp({ listener, addresses, rank, size: 2, deadlineMs: 5000 }),
    ),
  );
  await Promise.all(joined.map(async (transport) => transport.barrier()));
  await Promise.all(joined.map((transport) => transport.close()));
  for (const listener of listeners) listener.close();
});

test("a listener serves one generation after another", async () => {
  const listeners = await Promise.all([listenTcp(here), listenTcp(here)]);
  const addresses = listeners.map(({ address }) => address);
  for (const generation of [1, 2, 3]) {
    const joined = await Promise.all(
      listeners.map((listener, rank) =>
        joinTcp({ listener, addresses, rank, size: 2, generation, deadlineMs: 5000 }),
      ),
    );
    await Promise.all(joined.map(async (transport) => transport.barrier()));
    await Promise.all(joined.map((transport) => transport.close()));
  }
  for (const listener of listeners) listener.close();
});
