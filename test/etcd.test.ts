/** The store of a coordinator in a real etcd, of Debian's package `etcd-server`. */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync } from "node:fs";
import { rm } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { openEtcdStore, openStateStore } from "../src/durable/index.ts";
import { onDisk } from "./support/folder.ts";

const skip = hasEtcd() ? false : "etcd is not installed (Debian: apt-get install etcd-server)";
const module = new URL("../src/durable/index.js", import.meta.url).href;
let etcd: ChildProcess;
let folder = "";
let url = "";

function hasEtcd(): boolean {
  try {
    execFileSync("etcd", ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

before(async () => {
  if (skip !== false) return;
  folder = mkdtempSync(join(onDisk(), "lockstep-etcd-"));
  const [client, peer] = [await freePort(), await freePort()];
  url = `http://127.0.0.1:${client}`;
  const words = [
    ["--data-dir", folder],
    ["--listen-client-urls", url],
    ["--advertise-client-urls", url],
    ["--listen-peer-urls", `http://127.0.0.1:${peer}`],
    ["--initial-advertise-peer-urls", `http://127.0.0.1:${peer}`],
    ["--initial-cluster", `default=http://127.0.0.1:${peer}`],
  ].flat();
  etcd = spawn("etcd", words, { stdio: "ignore" });
  for (let tries = 0; ; tries++) {
    const health = await fetch(`${url}/health`).then(
      (response) => response.text(),
      () => "",
    );
    if (health.includes('"true"')) return;
    assert.ok(tries < 200, "etcd answers");
    await delay(100);
  }
});

after(async () => {
  if (skip !== false) return;
  const closed = once(etcd, "close");
  etcd.kill("SIGKILL");
  await closed;
  await rm(folder, { recursive: true, force: true });
});

test("states outlive their writer, and each owner has a higher term", { skip }, async () => {
  const first = await openEtcdStore([url], "runs/a");
  assert.equal(first.last, undefined);
  await first.write({ step: 1 });
  await Promise.all([first.write({ step: 2 }), first.write({ step: 3 })]);
  await first.close();
  const second = await openStateStore(`etcd://127.0.0.1:1,${url.slice(7)}/runs/a`);
  assert.deepEqual(second.last, { step: 3 });
  assert.ok(second.term > first.term);
  const other = await openEtcdStore([url], "runs/b");
  assert.equal(other.last, undefined, "another run");
  await other.close();
  await second.close();
});

test("a state of ten thousand workers fits", { skip }, async () => {
  const store = await openEtcdStore([url], "runs/large");
  const workers = Array.from({ length: 10_000 }, (_, id) => {
    const times = { since: id * 17.3, heard: id * 19.1 };
    return { id, place: `host${id}/0`, node: `host${id}`, status: "member", ...times, step: 811 };
  });
  await store.write({ workers });
  await store.close();
  const again = await openEtcdStore([url], "runs/large");
  assert.deepEqual(again.last, { workers });
  await again.close();
});

test("a second coordinator is refused while the first lives, and takes over from a killed one", {
  skip,
}, async () => {
  const code = `
    const { openEtcdStore } = await import(${JSON.stringify(module)});
    const store = await openEtcdStore([${JSON.stringify(url)}], "runs/c", { leaseSeconds: 2 });
    await store.write({ by: "the first" });
    console.log("written");
    setInterval(() => undefined, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", code]);
  await once(child.stdout, "data");
  await assert.rejects(openEtcdStore([url], "runs/c", { leaseSeconds: 2 }), {
    code: "RUN_LOCKED",
    message: new RegExp(`by process ${child.pid} on`),
  });
  const closed = once(child, "close");
  child.kill("SIGKILL");
  await closed;
  const second = await openEtcdStore([url], "runs/c", { leaseSeconds: 4 });
  assert.deepEqual(second.last, { by: "the first" });
  await second.close();
});

test("an owner that was away for longer than its lease is refused", { skip }, async () => {
  const code = `
    const { openEtcdStore } = await import(${JSON.stringify(module)});
    const store = await openEtcdStore([${JSON.stringify(url)}], "runs/d", { leaseSeconds: 2 });
    await store.write({ by: "the first" });
    console.log("written");
    process.stdin.once("data", async () => {
      await store.write({ by: "the first, too late" }).catch((error) => {
        console.log(error.code + " " + error.message);
      });
      process.exit();
    });`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", code]);
  await once(child.stdout, "data");
  child.kill("SIGSTOP");
  const second = await openEtcdStore([url], "runs/d", { leaseSeconds: 4 });
  await second.write({ by: "the second" });
  child.kill("SIGCONT");
  child.stdin.write("go\n");
  const [text] = (await once(child.stdout, "data")) as [Buffer];
  assert.match(text.toString(), /^FENCED This coordinator .* has taken over/s);
  await second.close();
  const third = await openEtcdStore([url], "runs/d");
  assert.deepEqual(third.last, { by: "the second" });
  await third.close();
});

test("an etcd that is not there is an error that says so", async () => {
  const port = await freePort();
  await assert.rejects(openStateStore(`etcd://127.0.0.1:${port}/runs/e`), {
    code: "IO_FAILED",
    message: /^No etcd answered \(lease\/grant\)\. http:\/\/127\.0\.0\.1:\d+: .*ECONNREFUSED/,
  });
  await assert.rejects(openStateStore("etcd://127.0.0.1"), { code: "INVALID_OPTION" });
});
