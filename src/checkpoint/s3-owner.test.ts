import assert from "node:assert/strict";
import { test } from "node:test";
import { serve } from "../../test/support/conditional-s3.ts";
import { S3Owner } from "./s3-owner.ts";

const key = "prefix/owner.json";
const by = { host: "a", pid: process.pid, space: "one", since: "2026-01-01T00:00:00Z" };

test("an owner that cannot be understood counts as gone if it does not change", async (context) => {
  const { bucket, objects } = await serve(context);
  await bucket.put(key, "{ it was edited");
  const told: string[] = [];
  const onWatch = (text: string) => told.push(text);
  const owner = await S3Owner.take(bucket, { key, by, watchMs: 20, onWatch });
  assert.match(told.join(), /^"s3:\/\/bucket\/prefix" belongs to another process/);
  assert.equal(JSON.parse(objects.get(`/bucket/${key}`) ?? "{}").host, "a");
  await owner.check();
  await owner.release();
  assert.equal(await bucket.get(key), undefined);
});

test("an owner that cannot be understood is alive if it changes", async (context) => {
  const { bucket } = await serve(context);
  await bucket.put(key, "number 1 of another version");
  const taking = S3Owner.take(bucket, { key, by, watchMs: 60_000 });
  // It has read the first number when a second request is answered.
  let written = Promise.resolve();
  const write = () => {
    written = written.then(() => bucket.put(key, `number ${performance.now()}`));
  };
  const changes = setInterval(write, 20);
  try {
    await assert.rejects(taking, {
      code: "RUN_LOCKED",
      message: /^Checkpoints are being written to "s3:\/\/bucket\/prefix" by another process\./,
    });
  } finally {
    clearInterval(changes);
    await written;
  }
});
