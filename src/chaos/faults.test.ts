import assert from "node:assert/strict";
import { test } from "node:test";
import { KINDS, kindsOf } from "./faults.ts";

test("all kinds are possible on Linux, and all but flipped bits elsewhere", () => {
  const all = Object.keys(KINDS);
  assert.deepEqual(kindsOf(all, "linux"), all);
  const others = all.filter((kind) => kind !== "bit-flip");
  assert.deepEqual(kindsOf(others, "darwin"), others);
  assert.throws(() => kindsOf(["bit-flip"], "win32"), {
    code: "INVALID_OPTION",
    message: /possible on Linux only/,
  });
});

test("a kind that one machine cannot have is refused with the reason", () => {
  assert.throws(() => kindsOf(["coordinator"], "linux"), /nothing here kills and restarts/);
  assert.throws(() => kindsOf(["earthquake"], "linux"), /There is no fault "earthquake"/);
});
