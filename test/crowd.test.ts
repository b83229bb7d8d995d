/** Many simulated agents whose messages are those of the protocol: nobody is forgotten. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Crowd } from "./support/crowd.ts";

test("a thousand agents join, beat, die and come back, and the run goes on with all that live", () => {
  const crowd = new Crowd({
    agents: 1000,
    seed: 7,
    stepMs: 500,
    deathMs: 3_000,
    returnMs: 5_000,
  });
  crowd.pass(60_000);
  const { steps } = crowd;
  assert.ok(steps > 10, `${steps} steps`);
  assert.ok(crowd.deaths > 5, `${crowd.deaths} deaths`);
  crowd.calm();
  crowd.pass(60_000);
  assert.ok(crowd.steps > steps + 60, `${crowd.steps} steps`);
  const living = crowd.living().map(({ worker }) => worker as number);
  assert.equal(living.length, 1000, "all are back");
  const members = crowd.state.generation.members.map(({ worker }) => worker);
  const ascending = (ids: readonly number[]) => [...ids].sort((a, b) => a - b);
  assert.deepEqual(ascending(members), ascending(living));
  assert.deepEqual(
    crowd.state.workers.map(({ status }) => status),
    members.map(() => "member"),
  );
});
