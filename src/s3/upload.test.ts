import assert from "node:assert/strict";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { bucketAt } from "../../test/support/conditional-s3.ts";
import { upload } from "./upload.ts";

/** S3 keeps a part that comes after the end of its upload, and nobody removes it. */
test("after a part was refused, an upload is ended when no part is on its way any more", async (context) => {
  const order: string[] = [];
  let sawEnd = () => {};
  const ended = new Promise<void>((resolve) => {
    sawEnd = resolve;
  });
  const answer = async (method: string, part: string | undefined, response: ServerResponse) => {
    if (method === "POST") {
      response.end("<Result><UploadId>id</UploadId></Result>");
    } else if (method === "DELETE") {
      order.push("ended");
      sawEnd();
      response.writeHead(204).end();
    } else if (part === "1") {
      order.push("part 1 refused");
      response.writeHead(403).end("<Error><Code>AccessDenied</Code></Error>");
    } else {
      // It takes so long that a client which does not wait ends the upload first.
      await Promise.race([ended, delay(200)]);
      order.push(`part ${part} taken`);
      response.writeHead(200, { etag: '"x"' }).end();
    }
  };
  const server = createServer((request, response) => {
    const { method = "", url = "" } = request;
    request.resume();
    request.on("end", () => void answer(method, /partNumber=(\d+)/.exec(url)?.[1], response));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  context.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const bucket = bucketAt((server.address() as AddressInfo).port);
  const piece = new Uint8Array(2 ** 23);
  const pieces = (async function* () {
    for (let count = 0; count < 4; count++) yield piece;
  })();
  await assert.rejects(upload(bucket, "large", 4 * piece.byteLength, pieces), { code: "STORE" });
  assert.equal(order.at(-1), "ended", order.join());
  assert.ok(order.includes("part 2 taken"), order.join());
});
