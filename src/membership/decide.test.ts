import assert from "node:assert/strict";
import { test } from "node:test";
import { FIRST_STEP_MS } from "./bounds.ts";
import { Leader, running } from "./leader.testing.ts";
import type { MembershipOptions } from "./types.ts";

test("a run begins when all workers that were started are ready", () => {
  const leader = new Leader({ local: 3 });
  assert.equal(leader.actions.filter(({ kind }) => kind === "start").length, 3);
  leader.ready(0, 2);
  assert.deepEqual(leader.members, []);
  leader.said();
  leader.ready(1);
  assert.deepEqual(leader.members, [0, 1, 2]);
  assert.equal(leader.said(), "Generation 1 begins after step 0 with workers 0, 1 and 2.");
});

test("it does not wait for a slow starter longer than half a minute", () => {
  const leader = new Leader({ local: 3 }).ready(0, 1).pass(29_000);
  assert.deepEqual(leader.members, []);
  assert.deepEqual(leader.pass(1_500).members, [0, 1]);
});

test("a killed worker is lost at once, and the others do what it has computed", () => {
  const leader = running().steps(1);
  leader.now += 40;
  leader.kill(2);
  assert.equal(
    leader.said(),
    "Worker 2 (host b) was lost at step 12, found in 40 ms: it was killed by SIGKILL.",
  );
  const asked = { kind: "regroup", generation: 1, workers: [0, 1], when: "now" };
  assert.deepEqual(leader.did("regroup"), asked);
  leader.ready(0, 1);
  assert.match(
    leader.said(),
    /^Generation 2 begins after step 11 with workers 0 and 1; what worker 2 computed is given to workers 0 and 1\./,
  );
});

test("a lost worker is replaced after the first step without it, and its successor enters between two steps", () => {
  const leader = running();
  leader.kill(2);
  leader.ready(0, 1);
  assert.equal(leader.did("start"), undefined);
  leader.steps(1);
  const start = { kind: "start", worker: 3, place: "b/2", node: "b" };
  assert.deepEqual(leader.did("start"), start);
  leader.steps(1).hear({ kind: "ready", worker: 3, generation: 0, step: 0 });
  const asked = { kind: "regroup", generation: 2, workers: [0, 1], when: "after-step" };
  assert.deepEqual(leader.did("regroup"), asked);
  leader.steps(1).ready(0, 1);
  assert.deepEqual(leader.members, [0, 1, 3]);
  assert.deepEqual(leader.state.generation.holders, [0, 1]);
  assert.equal(leader.state.generation.step, 13);
});

test("a successor does not wait for a step that takes long, nor when another worker is lost", () => {
  const slow = running();
  slow.kill(2);
  slow.ready(0, 1).pass(FIRST_STEP_MS - 500);
  assert.equal(slow.did("start"), undefined);
  slow.pass(500);
  assert.ok(slow.did("start"));
  const again = running();
  again.kill(2);
  again.ready(0, 1).kill(1);
  again.ready(0);
  const started = again.actions.filter(({ kind }) => kind === "start");
  assert.equal(started.length, 2);
});

test("no generation begins before a lost worker is dead or refused", () => {
  for (const end of ["ended", "refused"] as const) {
    const leader = running().pass(2_000, [1]).ready(0, 2);
    assert.equal(leader.state.generation.number, 1);
    // It is not dead after all, but nobody believes it any more.
    leader.ready(1);
    leader.hear({ kind: "committed", worker: 1, generation: 1, step: 99 });
    assert.equal(leader.state.generation.number, 1);
    assert.equal(leader.state.committed, 10);
    if (end === "ended") leader.kill(1);
    else leader.hear({ kind: "refused", worker: 1 });
    assert.deepEqual(leader.members, [0, 2]);
  }
});

test("a worker that cannot be killed ends the run, rather than that two generations live", () => {
  const leader = running(2).pass(30_000, [1]);
  assert.equal(leader.verdict()?.requeue, true);
  assert.match(leader.said(), /is still there after 1 attempt.*could not be killed in 4 attempts/);
  const lost = leader.told.filter(({ about }) => about === "lost");
  assert.deepEqual(
    lost.map(({ worker }) => worker),
    [1],
    "it is lost once",
  );
});

test("messages of an older generation change nothing", () => {
  const leader = running();
  leader.kill(2);
  leader.ready(0, 1);
  leader.said();
  for (const event of [
    { kind: "ready", worker: 0, generation: 1, step: 10 },
    { kind: "committed", worker: 0, generation: 1, step: 11 },
    { kind: "reported", by: 0, worker: 1, generation: 1 },
  ] as const) {
    assert.deepEqual(leader.hear(event).actions, []);
  }
  assert.deepEqual([leader.state.phase, leader.state.committed], ["running", 10]);
});

test("below the minimum the run waits, says so, and goes on by itself", () => {
  const leader = running(3, { minWorkers: 3 });
  leader.kill(2);
  leader.ready(0, 1);
  leader.beat();
  assert.match(
    leader.said(),
    /The run waits after step 10: 2 workers are ready, and it needs 3; 1 worker is starting\./,
  );
  leader.pass(61_000);
  assert.match(leader.said(), /^The run waits after step 10/);
  leader.hear({ kind: "ready", worker: 3, generation: 0, step: 0 });
  assert.deepEqual(leader.members, [0, 1, 3]);
});

test("a flapping worker is set aside, twice as long each time, until one is of use", () => {
  const leader = running(2);
  leader.steps(20).kill(1);
  leader.ready(0).steps(1);
  assert.deepEqual(leader.did("start"), { kind: "start", worker: 2, place: "b/1", node: "b" });
  assert.doesNotMatch(leader.said(), /aside/);
  for (const [worker, rest] of [
    [2, 1],
    [3, 2],
    [4, 4],
  ] as const) {
    leader.kill(worker);
    assert.match(
      leader.said(),
      new RegExp(
        `Place b/1 \\(host b\\) is set aside for ${rest} s, because ${rest === 1 ? 2 : rest === 2 ? 3 : 4} workers were lost there in a row before`,
      ),
    );
    leader.steps(3).pass(rest * 1_000 - 500);
    assert.equal(leader.did("start"), undefined);
    leader.pass(1_000);
    assert.ok(leader.did("start"));
  }
  leader.hear({ kind: "ready", worker: 5, generation: 0, step: 0 });
  leader.ready(0).steps(25).said();
  leader.kill(5);
  leader.ready(0).steps(1);
  assert.ok(leader.did("start"), "it was of use, so its place does not rest");
});

test("a guest that flaps is not admitted before its rest is over", () => {
  const leader = running(1, { maxWorkers: 2 });
  const join = () => leader.hear({ kind: "join", place: "far/0", node: "far" });
  join();
  leader.kill(1);
  join();
  leader.kill(2);
  leader.said();
  join();
  assert.deepEqual(leader.did("refuse"), { kind: "refuse", place: "far/0", retryMs: 1_000 });
  assert.match(leader.said(), /not admitted: 2 workers of it were lost in a row/);
  leader.pass(1_000);
  join();
  assert.ok(leader.did("admit"));
});

test("workers beyond the most stand by, and take the place of a lost one at once", () => {
  const leader = running(3, { maxWorkers: 2 });
  assert.deepEqual(leader.members, [0, 1]);
  leader.kill(0);
  leader.ready(1);
  assert.deepEqual(leader.members, [1, 2]);
});

test("workers that come together enter together", () => {
  const leader = running(1, { maxWorkers: 4 });
  for (const place of ["x", "y"]) leader.hear({ kind: "join", place, node: place });
  leader.hear({ kind: "ready", worker: 1, generation: 0, step: 0 });
  assert.equal(leader.state.phase, "running");
  leader.hear({ kind: "ready", worker: 2, generation: 0, step: 0 });
  leader.ready(0);
  assert.deepEqual(leader.members, [0, 1, 2]);
});

test("one report of a peer makes all meet anew; the second one costs the accused its place", () => {
  const leader = running();
  leader.hear({ kind: "reported", by: 0, worker: 1, generation: 1 });
  assert.match(leader.said(), /^Worker 0 \(host b\) could not reach worker 1 \(host b\); all/);
  leader.hear({ kind: "reported", by: 2, worker: 1, generation: 1 }); // follows from the end of 1
  leader.ready(0, 1, 2);
  assert.deepEqual(leader.members, [0, 1, 2]);
  leader.hear({ kind: "reported", by: 2, worker: 1, generation: 2 });
  assert.match(
    leader.said(),
    /Worker 1 .* was lost at step 11.*workers 0 and 2 could not reach it/,
  );
  assert.ok(leader.did("kill"));
});

const SHORT = { workers: 2, why: "Each of 2 workers would need at least 9 GB." };

/** Worker 2 is lost, and the two others find that they have no room for the state. */
function short(options: Partial<MembershipOptions> = {}): Leader {
  const leader = running();
  Object.assign(leader.options, options);
  leader.kill(2);
  leader.ready(0, 1);
  for (const worker of [0, 1]) {
    leader.hear({ kind: "ready", worker, generation: 2, step: 10, short: SHORT });
  }
  return leader;
}

test("workers that have no room for the state wait until they are more, and the run says why", () => {
  const leader = short();
  assert.match(
    leader.said(),
    /Generation 2 cannot go on, because its members are too few\. Each of 2 workers would need at least 9 GB\./,
  );
  leader.pass(2_000);
  assert.equal(leader.state.phase, "gathering");
  leader.ready(3);
  assert.equal(leader.state.generation.number, 3);
  assert.deepEqual(leader.members, [0, 1, 3]);
  assert.equal(leader.state.generation.step, 10);
});

test("a wait for workers that never come is told with its reason", () => {
  const leader = short({ places: [] }).pass(1_000);
  assert.match(
    leader.said(),
    /The run waits after step 10: 2 workers are ready, and it needs 3; .*\. Each of 2 workers would need at least 9 GB\./,
  );
});

test("where no more workers may come, or the run is to stop, it ends and names the memory", () => {
  for (const [options, words] of [
    [
      { maxWorkers: 2 },
      /because 2 workers cannot hold its state\. Each of 2 .* 9 GB\. It has no checkpoint\./,
    ],
    [
      { stops: true },
      /because it is to stop, and 2 workers cannot hold its state\. Each of 2 .* 9 GB\./,
    ],
  ] as const) {
    assert.match(short(options).said(), words);
    assert.equal(short(options).state.phase, "ended");
  }
});

test("a run that goes on from an older checkpoint than the last counts from there", () => {
  const leader = running();
  leader.hear({ kind: "saved", step: 10 });
  for (const worker of [0, 1, 2]) leader.kill(worker);
  for (const worker of [3, 4, 5]) {
    leader.hear({ kind: "ready", worker, generation: 0, step: 0 });
  }
  assert.equal(leader.state.generation.step, 10);
  // The checkpoint of step 10 is damaged.
  leader.hear({ kind: "began", step: 5 });
  leader.steps(2).said();
  assert.equal(leader.state.committed, 7);
  leader.kill(3);
  assert.match(leader.said(), /Worker 3 .* was lost at step 8/);
});

test("a leader that was stopped, or whose clock jumps, blames nobody", () => {
  for (const jump of [3_600_000, -3_600_000]) {
    const leader = running();
    leader.now += jump;
    leader.hear({ kind: "time" });
    leader.pass(5_000);
    assert.deepEqual([leader.said(), leader.members], ["", [0, 1, 2]]);
    leader.pass(2_000, [2]);
    assert.match(leader.said(), /Worker 2 .* was lost/);
  }
});

test("a leader that was restarted from its stored state finds its workers again", () => {
  const leader = running();
  leader.state = JSON.parse(JSON.stringify(leader.state)) as Leader["state"];
  leader.now += 60_000;
  leader.hear({ kind: "restored" });
  leader.pass(1_000).steps(3);
  assert.deepEqual([leader.said(), leader.state.committed], ["", 13]);
});

test("a run that is to stop starts no worker", () => {
  const leader = running(2);
  Object.assign(leader.options, { stops: true });
  leader.kill(1);
  leader.ready(0).steps(1).pass(10_000);
  const started = leader.told.filter(({ about }) => about === "started");
  assert.deepEqual([leader.members, started.length], [[0], 2]);
});

test("workers that divide the model take part together: others stand by until they are a group", () => {
  const leader = running(4, { minWorkers: 2, maxWorkers: 4, together: 2 });
  assert.deepEqual(leader.members, [0, 1, 2, 3]);
  leader.kill(1);
  leader.ready(0, 2, 3);
  assert.deepEqual(leader.members, [0, 3], "0 and 2 hold the same part of the model");
  leader.steps(1).ready(4);
  assert.equal(leader.state.phase, "pausing");
  leader.ready(0, 3);
  assert.deepEqual(leader.members, [0, 3, 2, 4]);
});
