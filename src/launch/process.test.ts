import assert from "node:assert/strict";
import { test } from "node:test";
import type { WorkerEnd } from "./handle.ts";
import { WorkerProcess } from "./process.ts";

test("a worker whose process the system does not start has ended, and says why", async () => {
  // More than the system lets a process begin with.
  process.env["LOCKSTEP_TEST_LONG"] = "x".repeat(2 ** 22);
  try {
    const ended = await new Promise<WorkerEnd>((resolve) => {
      const started = WorkerProcess.start(3, { said: () => undefined, ended: resolve });
      assert.equal(started, undefined);
    });
    assert.deepEqual([ended.status, ended.signal], [null, null]);
    assert.match(ended.words, /spawn E2BIG|ENAMETOOLONG|too/i);
  } finally {
    delete process.env["LOCKSTEP_TEST_LONG"];
  }
});
