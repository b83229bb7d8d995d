/** Where workers of hosts listen, and the error when one of them cannot be reached. */
import assert from "node:assert/strict";
import net from "node:net";
import { test } from "node:test";
import { startAgent } from "../src/agent/index.ts";
import { listenTcp, parseAddress } from "../src/net/index.ts";
import { lockstep } from "./cli/support.ts";
import { withFolder } from "./support/folder.ts";
import { files, LOCAL, launch, rejectsWith, token } from "./support/hosts.ts";

const onLinux = process.platform === "linux" ? {} : { skip: "needs 127.0.0.9" };

/**
 * Returns another address of an agent that its workers do not have, like a firewall that opens the
 * agent's port alone.
 */
async function aliasOf(address: string) {
  const { host, port } = parseAddress(address);
  const open: net.Socket[] = [];
  const server = net.createServer((near) => {
    const far = net.connect(port, host);
    open.push(near, far);
    for (const socket of [near, far]) socket.on("error", () => undefined);
    near.pipe(far).pipe(near);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.9", resolve));
  return {
    address: `127.0.0.9:${(server.address() as net.AddressInfo).port}`,
    close: () => {
      server.close();
      for (const socket of open) socket.destroy();
    },
  };
}

test(
  "a worker that cannot be reached: the error says who could not reach whom and where, within the agents' 10 s",
  onLinux,
  () =>
    withFolder(files, async (folder) => {
      const agents = await Promise.all([0, 1].map(() => startAgent({ ...LOCAL, folder })));
      const [first = "", second = ""] = agents.map(({ address }) => address);
      const alias = await aliasOf(first);
      try {
        const running = launch({ hosts: [alias.address, second], root: folder });
        const who = `On ${second}: worker 1 could not reach worker 0 at 127.0.0.9:`;
        await rejectsWith(running, "ADDRESS", who, "nothing listens there", "--ports");
      } finally {
        alias.close();
        await Promise.all(agents.map((agent) => agent.close()));
      }
    }),
);

/** Returns two neighbouring ports that are most likely free. */
async function twoPorts() {
  for (let attempt = 0; ; attempt++) {
    const one = await listenTcp(LOCAL);
    const { port: first } = parseAddress(one.address);
    const two = listenTcp({ ...LOCAL, port: first + 1 }).then(
      (next) => next.close(),
      () => "taken",
    );
    const isTaken = (await two) === "taken" || first === 65_535;
    one.close();
    if (!isTaken) return { first, last: first + 1 };
    assert.ok(attempt < 20, "no two ports are free");
  }
}

test("the first free port of a range is taken, and a range in use is an error", async () => {
  const ports = await twoPorts();
  const listen = { host: "127.0.0.1", token, ports };
  const [one, two] = [await listenTcp(listen), await listenTcp(listen)];
  const taken = [one, two].map(({ address }) => parseAddress(address).port);
  assert.deepEqual(taken, [ports.first, ports.last]);
  await rejectsWith(listenTcp(listen), "ADDRESS", `${ports.first} to ${ports.last}`, "--ports");
  one.close();
  two.close();
});

test("workers listen on the ports of their agent, and too few ports are an error", () =>
  withFolder(files, async (folder) => {
    const ports = await twoPorts();
    const agents = await Promise.all([0, 1].map(() => startAgent({ ...LOCAL, ports, folder })));
    const hosts = agents.map(({ address }) => address);
    try {
      const overrides = { steps: 2 };
      assert.equal(await launch({ hosts, root: folder, overrides }), "finished");
      const running = launch({ hosts, root: folder, overrides, workers: 2 });
      await rejectsWith(running, "ADDRESS", `${ports.first} to ${ports.last}`, "in use");
    } finally {
      await Promise.all(agents.map((agent) => agent.close()));
    }
  }));

test("an invalid range of ports is refused", async () => {
  for (const text of ["4200-4100", "0-5", "x", "1-70000"]) {
    const ended = await lockstep(["agent", "--ports", text], {
      cwd: process.cwd(),
      env: { LOCKSTEP_TOKEN: token },
    });
    assert.equal(ended.status, 1, ended.stdout);
    assert.match(ended.stderr, /range of ports/);
  }
});
