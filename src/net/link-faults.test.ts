import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { test } from "node:test";
import { FRAME } from "./frame.ts";
import { Link } from "./link.ts";
import { LinkFaults } from "./link-faults.ts";

test("a cut holds back bytes of both directions and closes nothing; then all arrive", async () => {
  const server = net.createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as net.AddressInfo;
  const accepted = once(server, "connection");
  const { signal } = new AbortController();
  const address = { host: "127.0.0.1", port };
  const here = await Link.dial({ address, tls: false, signal }, 5000);
  const there = Link.accept(((await accepted) as [net.Socket])[0]);
  const faults = new LinkFaults();
  const heard: string[] = [];
  let closed = 0;
  try {
    const arrived = new Promise<void>((resolve) => {
      for (const [name, link] of [
        ["here", here],
        ["there", there],
      ] as const) {
        link.handler = {
          destination: () => "has no payload",
          frame: () => {
            heard.push(name);
            if (heard.length === 2) resolve();
          },
          closed: () => {
            closed += 1;
          },
        };
      }
    });
    faults.add(here);
    faults.begin("partition", 60_000);
    here.write({ type: FRAME.ping });
    there.write({ type: FRAME.ping });
    // Bytes that were not held back would have gone this way and back by then.
    const echo = net.connect(port, "127.0.0.1");
    const [other] = (await once(server, "connection")) as [net.Socket];
    other.write("x");
    await once(echo, "data");
    echo.destroy();
    other.destroy();
    assert.deepEqual([heard, closed], [[], 0]);
    faults.end();
    await arrived;
    assert.deepEqual([heard.sort(), closed], [["here", "there"], 0]);
  } finally {
    here.destroy();
    there.destroy();
    server.close();
  }
});
