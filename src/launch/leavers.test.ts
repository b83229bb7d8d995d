import assert from "node:assert/strict";
import { test } from "node:test";
import { decide, firstState, type MembershipOptions } from "../membership/index.ts";
import { Leavers } from "./leavers.ts";

/** Two members of a run, and what the leavers do about them. */
function two(options: Partial<MembershipOptions>) {
  const places = ["b/0", "b/1"].map((name) => ({ name, node: "b" }));
  const all: MembershipOptions = { minWorkers: 1, maxWorkers: 2, places, ...options };
  let { state } = decide(0, firstState(0), { kind: "time" }, all);
  for (const worker of [0, 1]) {
    ({ state } = decide(1, state, { kind: "ready", worker, generation: 0, step: 0 }, all));
  }
  const did: string[] = [];
  const leavers = new Leavers({
    state: () => state,
    membership: () => all,
    leave: (worker, why) => did.push(`${worker} leaves: ${why}`),
    stop: () => did.push("stop"),
    notice: (text) => did.push(text),
  });
  return { leavers, did };
}

test("a slow worker leaves where enough are left without it", () => {
  const { leavers, did } = two({});
  leavers.exclude(1, "it is slow");
  assert.deepEqual(did, ["1 leaves: it is slow"]);
});

test("a slow worker stays where the others would be too few, and that is told", () => {
  const { leavers, did } = two({ minWorkers: 2 });
  leavers.exclude(1, "it is slow");
  assert.deepEqual(did, [
    "Worker 1 stays, because without it the run would have too few workers: it is slow.",
  ]);
});

test("a run that is to stop excludes none; one that was told to leave must, though the run stops", () => {
  const stopping = two({ stops: true });
  stopping.leavers.exclude(1, "it is slow");
  assert.deepEqual(stopping.did, []);
  const { leavers, did } = two({ minWorkers: 2, maxWorkers: 2, places: [] });
  leavers.ask(1);
  assert.deepEqual(did, ["The run stops, because too few workers would be left.", "stop"]);
});
