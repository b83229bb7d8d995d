/** Messages of the launcher that a worker reads in one turn of its event loop. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { createReferenceEngine } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import type { Formed, FromWorker } from "../protocol/index.ts";
import { atMost } from "./at-most.ts";
import { Generations } from "./generations.ts";

const DEADLINE_MS = 10_000;

/** The generations of worker 0, and a wait for what it says next. */
function member() {
  const told: FromWorker[] = [];
  let hear: () => void = () => undefined;
  const generations = new Generations({
    engine: createReferenceEngine(),
    group: `lockstep-test-${process.pid}-${randomUUID().slice(0, 8)}`,
    deadlineMs: DEADLINE_MS,
    waits: { begun: 0, ended: 0 },
    tell: (message) => {
      told.push(message);
      hear();
    },
    listener: undefined,
  });
  const heard = (count: number) =>
    new Promise<void>((resolve) => {
      hear = () => told.length >= count && resolve();
      hear();
    });
  return { generations, told, heard };
}

function formed(generation: number, members: number): Formed {
  const all = Array.from({ length: members }, () => ({ node: 0 }));
  return { kind: "form", generation, rank: 0, members: all, hasBegun: false };
}

test("a worker answers when it is told of a generation and to leave it at once", async () => {
  const { generations, told, heard } = member();
  const next = generations.next(7);
  generations.form(formed(1, 2));
  generations.regroup(1, "now");
  assert.equal(await atMost(DEADLINE_MS, heard(2)), undefined, "it has left generation 1");
  assert.deepEqual(
    told.map((message) => message.kind === "ready" && [message.generation, message.step]),
    [
      [0, 7],
      [1, 7],
    ],
  );
  generations.end(new LockstepError("ABORTED", "The test is over."));
  await assert.rejects(next, { code: "ABORTED" });
});

test("a worker that is told of a generation and to leave it after a step does not forget that", async () => {
  const { generations } = member();
  const next = generations.next(0);
  generations.form(formed(1, 1));
  generations.regroup(1, "after-step");
  const { group } = await next;
  assert.equal(generations.isWanted(), true);
  await group.close();
});
