/** What a store in etcd says of answers that a real etcd gives rarely (`test/etcd.test.ts` has one). */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { openEtcdStore } from "./etcd-store.ts";

type Answer = Readonly<Record<string, unknown>>;

/** Opens a store in an etcd that gives these answers to transactions, in turn. */
async function withAnswers(
  answers: readonly Answer[],
  body: (open: ReturnType<typeof openEtcdStore>) => Promise<void>,
): Promise<void> {
  const left = [...answers];
  const server = createServer((request, response) => {
    request.resume();
    const isTransaction = request.url === "/v3/kv/txn";
    response.end(JSON.stringify(isTransaction ? left.shift() : { ID: "7", result: { TTL: "5" } }));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  try {
    await body(openEtcdStore([`http://127.0.0.1:${port}`], "runs/a"));
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const header = { revision: "12" };
const nothing = { response_range: { kvs: [] } };

test("an owner whose place has ended, and that nobody has taken, is told to start again", () =>
  withAnswers(
    [
      { header, succeeded: true, responses: [{}, nothing] },
      { header, succeeded: false, responses: [nothing] },
    ],
    async (open) => {
      const store = await open;
      await assert.rejects(store.write({ step: 1 }), (error: Error) => {
        assert.match(error.message, /it could not renew its place there in time/);
        assert.match(error.message, /Start the same command again/);
        assert.doesNotMatch(error.message, /taken over/);
        return true;
      });
      await store.close();
    },
  ));

test("a value that is no state of a run is an error that names its place", () => {
  const value = Buffer.from("by another program").toString("base64");
  const kvs = [{ key: "", value, create_revision: "3" }];
  const answer = { header, succeeded: true, responses: [{}, { response_range: { kvs } }] };
  return withAnswers([answer], async (open) => {
    await assert.rejects(open, {
      code: "FILE_CORRUPT",
      message: /^What is in "etcd http:.*, runs\/a" is not the state of a run\./,
    });
  });
});
