/**
 * Conditional writes. The S3 server of the other tests refuses them (501), and no server of npm or
 * Debian that is small enough to be started here knows them. So this server is written for the test:
 * it keeps RFC 9110 (13.1.2 and 15.5.13) for `PUT` with `If-None-Match: *`, and no more of S3.
 */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { LockstepError } from "../errors.ts";
import { Bucket } from "./bucket.ts";

interface Server {
  readonly bucket: Bucket;
  readonly objects: Map<string, string>;
  /** What the server answered, in order. */
  readonly statuses: number[];
}

/** @param instead the status that requests with a condition get, whatever is there */
async function serve(context: TestContext, instead?: number): Promise<Server> {
  const objects = new Map<string, string>();
  const statuses: number[] = [];
  const server = createServer((request, response) => {
    const { method, url: key = "", headers } = request;
    const pieces: Buffer[] = [];
    const isConditional = headers["if-none-match"] === "*";
    const put = () => {
      if (isConditional && instead !== undefined) return instead;
      if (isConditional && objects.has(key)) return 412;
      objects.set(key, Buffer.concat(pieces).toString());
      return 200;
    };
    request.on("data", (piece: Buffer) => pieces.push(piece));
    request.on("end", () => {
      const found = objects.get(key);
      const status = method === "PUT" ? put() : found === undefined ? 404 : 200;
      statuses.push(status);
      response.writeHead(status).end(method === "GET" ? (found ?? "") : "");
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  context.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const bucket = new Bucket(
    "bucket",
    {
      endpoint: `http://127.0.0.1:${port}`,
      isPathStyle: true,
      region: "us-east-1",
      accessKeyId: "key",
      secretAccessKey: "secret",
    },
    { tries: 2, pauseMs: 1, answerMs: 5_000 },
  );
  return { bucket, objects, statuses };
}

test("an object is made where there is none; with one, the answer 412 says so and leaves it", async (context) => {
  const { bucket, objects, statuses } = await serve(context);
  assert.equal(await bucket.create("owner.json", "first"), true);
  assert.equal(await bucket.create("owner.json", "second"), false);
  assert.deepEqual([...objects], [["/bucket/owner.json", "first"]]);
  assert.deepEqual(statuses, [200, 412], "412 is an answer, and is not asked for again");
});

test("of many that make an object at once, one has made it", async (context) => {
  const { bucket, objects } = await serve(context);
  const made = await Promise.all(
    Array.from({ length: 8 }, (_, id) => bucket.create("owner.json", String(id))),
  );
  const winners = made.flatMap((isFirst, id) => (isFirst ? [String(id)] : []));
  assert.deepEqual(winners, [...objects.values()]);
});

test("a conflict with another write at the same time (409) counts as an object that is there", async (context) => {
  const { bucket, objects, statuses } = await serve(context, 409);
  assert.equal(await bucket.create("owner.json", "own"), false);
  assert.deepEqual([objects.size, statuses], [0, [409]]);
});

test("a server that does not know the condition (501) writes without it", async (context) => {
  const { bucket, objects, statuses } = await serve(context, 501);
  assert.equal(await bucket.create("owner.json", "own"), true);
  assert.equal(objects.get("/bucket/owner.json"), "own");
  assert.equal(statuses.at(-1), 200);
});

test("412 is an error where it is no answer that is expected", async (context) => {
  const { bucket } = await serve(context);
  const asked = { method: "PUT", key: "owner.json", headers: { "if-none-match": "*" } } as const;
  await bucket.request("write", asked);
  await assert.rejects(
    bucket.request("write", asked),
    (error: unknown) => error instanceof LockstepError && error.code === "STORE",
  );
});
