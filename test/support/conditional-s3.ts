/**
 * A server for tests that knows conditional writes. The S3 server of the other tests refuses them
 * (501), and no server of npm or Debian that is small enough to be started here knows them. So this
 * one keeps RFC 9110 (13.1.2 and 15.5.13) for `PUT` with `If-None-Match: *`, and no more of S3.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";
import { Bucket } from "../../src/s3/index.ts";

export interface ConditionalServer {
  readonly bucket: Bucket;
  readonly objects: Map<string, string>;
  /** What the server answered, in order. */
  readonly statuses: number[];
}

/** @param instead the status that requests with a condition get, whatever is there */
export async function serve(context: TestContext, instead?: number): Promise<ConditionalServer> {
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
      if (method === "DELETE") objects.delete(key);
      statuses.push(status);
      response.writeHead(status).end(method === "GET" ? (found ?? "") : "");
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  context.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { bucket: bucketAt((server.address() as AddressInfo).port), objects, statuses };
}

/** A bucket of a server on this machine. */
export function bucketAt(port: number): Bucket {
  return new Bucket(
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
}
