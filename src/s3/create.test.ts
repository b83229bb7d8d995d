/** Conditional writes: an object is made where there is none. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { serve } from "../../test/support/conditional-s3.ts";
import { LockstepError } from "../errors.ts";

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
