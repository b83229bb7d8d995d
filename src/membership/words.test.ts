import assert from "node:assert/strict";
import { test } from "node:test";
import { running } from "./leader.testing.ts";
import { lostText } from "./words.ts";

test("a cause that is a sentence of its own ends with one full stop", () => {
  const { state } = running();
  const worker = state.workers.find(({ id }) => id === 2);
  assert.ok(worker !== undefined);
  for (const cause of ["its disk is full", "its disk is full."]) {
    assert.match(lostText(state, worker, cause), /: its disk is full\.$/);
  }
});
