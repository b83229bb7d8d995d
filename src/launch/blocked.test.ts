import assert from "node:assert/strict";
import { test } from "node:test";
import { Blocked } from "./blocked.ts";

const fileOf = () => "/data/run.lock";

test("a process that stays in a call to the system is blocked, and the file is named", () => {
  const blocked = new Blocked();
  assert.equal(blocked.look(1, { state: "D", fileOf, now: 1000 }), undefined);
  assert.deepEqual(blocked.look(1, { state: "D", fileOf, now: 1250 }), {
    doing: "blocked",
    stillMs: 250,
    file: "/data/run.lock",
  });
  assert.equal(blocked.look(2, { state: "D", fileOf, now: 1250 }), undefined);
  assert.equal(blocked.look(1, { state: "D", fileOf, now: 9000 })?.stillMs, 8000);
});

test("a beat, or a process that runs, begins the count anew", () => {
  const blocked = new Blocked();
  const look = (state: string, now: number) => blocked.look(1, { state, fileOf, now });
  look("D", 0);
  assert.ok(look("D", 250));
  blocked.clear(1);
  assert.equal(look("D", 500), undefined);
  assert.ok(look("D", 750));
  assert.equal(look("R", 1000), undefined);
  assert.equal(look("D", 1250), undefined);
});
