/** Workers that are stopped, hang, wait for files or for each other; and those that leave. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Doing } from "./beats.ts";
import { BEAT_MS, patienceOf, withStep } from "./bounds.ts";
import { type Leader, running } from "./leader.testing.ts";

test("a stopped worker is found within a bound that follows the time of a step", () => {
  const leader = running().pass(1_000, [1]);
  assert.equal(leader.did("kill"), undefined);
  leader.pass(1_000, [1]);
  assert.deepEqual(leader.did("kill"), { kind: "kill", worker: 1 });
  assert.match(leader.said(), /found in 1\.5 s: it showed no sign of life for 1\.5 s/);

  const steady = (ms: number) => {
    let pace = withStep(undefined, ms);
    for (let i = 0; i < 40; i++) pace = withStep(pace, ms);
    return Math.round(patienceOf(pace));
  };
  assert.deepEqual(
    [10, 100, 1_000, 10_000, 600_000].map(steady),
    [1_500, 1_500, 2_000, 20_000, 300_000],
  );
  // One validation of a minute among steps of 100 ms hides a hang for seconds only.
  assert.ok(patienceOf(withStep({ mean: 100, deviation: 10 }, 60_000)) < 4_000);
});

test("the last worker that holds the state brings it to newcomers before it leaves", () => {
  const leader = running(2).steps(1);
  leader.hear({ kind: "drain", worker: 0, why: "it got SIGTERM" });
  leader.steps(1).ready(0);
  leader.kill(1);
  // Nobody else has the state, so it stays longer than another one that leaves.
  leader.pass(60_000);
  assert.equal(leader.did("dismiss"), undefined);
  assert.deepEqual(leader.members, [0, 1], "no generation without a newcomer");
  const [newcomer = -1] = leader.state.workers.flatMap(({ id, status }) =>
    status === "starting" ? [id] : [],
  );
  leader.hear({ kind: "ready", worker: newcomer, generation: 0, step: 0 });
  assert.deepEqual(leader.members, [0, newcomer]);
  assert.equal(leader.state.generation.step, 12);
  leader.steps(1).ready(0, newcomer);
  assert.deepEqual([leader.members, leader.state.generation.step], [[newcomer], 13]);
  leader.steps(1);
  assert.deepEqual(leader.did("dismiss"), { kind: "dismiss", worker: 0 });
});

test("a worker that is asked to leave while the others meet anew hands over what it alone holds", () => {
  const leader = running();
  leader.kill(2);
  leader.ready(0);
  leader.hear({ kind: "drain", worker: 0, why: "it got SIGTERM" });
  assert.equal(leader.did("dismiss"), undefined);
  leader.kill(1);
  leader.hear({ kind: "ready", worker: 3, generation: 0, step: 0 });
  assert.deepEqual([leader.members, leader.state.generation.holders], [[0, 3], [0]]);
});

test("a step that is told again lets no worker go that leaves", () => {
  const leader = running().steps(1);
  leader.hear({ kind: "drain", worker: 0, why: "it got SIGTERM" });
  leader.steps(1).ready(0, 1, 2);
  assert.deepEqual(leader.members, [1, 2]);
  leader.hear({ kind: "committed", worker: 1, generation: 2, step: 12 });
  assert.equal(leader.did("dismiss"), undefined);
  leader.steps(1);
  assert.deepEqual(leader.did("dismiss"), { kind: "dismiss", worker: 0 });
});

test("a stopped worker is continued once before the state of the run is lost with it", () => {
  const leader = running().steps(1);
  // Two of three are stopped at nearly the same time, after the third was killed.
  leader.kill(2);
  for (const worker of [0, 1]) leader.hear({ kind: "stopped", worker });
  leader.pass(1_500, [0, 1]);
  const woken = leader.actions.filter(({ kind }) => kind === "wake" || kind === "kill");
  assert.deepEqual(woken, [
    { kind: "wake", worker: 0 },
    { kind: "wake", worker: 1 },
  ]);
  assert.match(leader.said(), /Worker 0 .* is continued \(SIGCONT\), because no other worker/);
  // One of them goes on, so the other is lost like any that is silent.
  leader.pass(1_500, [1]);
  assert.deepEqual(leader.did("kill"), { kind: "kill", worker: 1 });
  leader.kill(1);
  leader.ready(0);
  assert.deepEqual([leader.members, leader.state.generation.step], [[0], leader.state.committed]);
});

test("a stopped worker that holds the state alone, and cannot be continued, is lost", () => {
  const leader = running().steps(1);
  for (const worker of [1, 2]) leader.kill(worker);
  leader.hear({ kind: "stopped", worker: 0 });
  leader.pass(1_500, [0]);
  assert.deepEqual(leader.did("wake"), { kind: "wake", worker: 0 });
  leader.pass(1_500, [0]);
  assert.deepEqual(leader.did("kill"), { kind: "kill", worker: 0 });
});

test("a process that is stopped by a signal is found in 1.5 s, however long a step takes", () => {
  const leader = running();
  leader.state = { ...leader.state, pace: { mean: 10_000, deviation: 1_000 } };
  leader.hear({ kind: "stopped", worker: 1 });
  // One that goes on in time is not lost.
  leader.pass(1_000, [1]).pass(250).pass(5_000, [1]);
  assert.equal(leader.did("kill"), undefined);
  leader.hear({ kind: "stopped", worker: 1 });
  assert.deepEqual(leader.did("kill"), { kind: "kill", worker: 1 });
  assert.match(
    leader.said(),
    /found in 5 s: .* for 1\.5 s, and its process is stopped by a signal/,
  );
});

test("a worker that is asked to leave finishes the step, hands over and goes; it is not lost", () => {
  const leader = running();
  leader.hear({ kind: "drain", worker: 2, why: "its machine is preempted" });
  const asked = { kind: "regroup", generation: 1, workers: [0, 1, 2], when: "after-step" };
  assert.deepEqual(leader.did("regroup"), asked);
  assert.match(leader.said(), /Worker 2 \(host b\) is asked to leave: its machine is preempted\./);
  leader.steps(1).ready(0, 1, 2);
  assert.deepEqual(leader.members, [0, 1]);
  assert.deepEqual(leader.state.generation.holders, [0, 1]);
  assert.equal(leader.did("dismiss"), undefined);
  leader.steps(1);
  assert.deepEqual(leader.did("dismiss"), { kind: "dismiss", worker: 2 });
  leader.hear({ kind: "ended", worker: 2, status: 0, signal: null });
  leader.pass(5_000);
  assert.deepEqual([leader.did("start"), leader.members], [undefined, [0, 1]]);
  assert.doesNotMatch(leader.said(), /lost/);
});

test("a member that computes without an end is lost, and not those that wait for it", () => {
  const leader = running();
  const hang = (ms: number, doing: Doing, stillMs: (passed: number) => number) => {
    for (let passed = 0; passed < ms; passed += BEAT_MS) {
      leader.now += BEAT_MS;
      const of = (worker: number, does: Doing, still: number) => ({
        worker,
        progress: { doing: does, stillMs: still },
      });
      const beats = [
        of(0, "waiting", passed),
        of(1, doing, stillMs(passed)),
        of(2, "waiting", passed),
      ];
      leader.hear({ kind: "beats", beats });
    }
  };
  hang(120_000, "computing", () => 100); // slow, but it goes on
  hang(120_000, "other", (passed) => passed); // it writes a file
  assert.doesNotMatch(leader.said(), /lost/);
  hang(20_000, "computing", (passed) => passed);
  assert.match(
    leader.said(),
    /Worker 1 \(host b\) was lost at step 11.*a run of its device has not ended for 15 s/,
  );
  assert.doesNotMatch(leader.said(), /[Ww]orkers? [02].*lost/);
  assert.deepEqual(leader.state.generation.members.length, 3);
});

/** Lets time pass in which each worker does something without an end. */
function stall(leader: Leader, ms: number, doing: readonly Doing[], file = "/data/a.txt"): void {
  for (let passed = 0; passed <= ms; passed += BEAT_MS) {
    leader.now += BEAT_MS;
    const beats = doing.map((does, worker) => {
      const at = does === "waiting" ? {} : { file };
      return { worker, progress: { doing: does, stillMs: passed, ...at } };
    });
    leader.hear({ kind: "beats", beats });
  }
}

test("a member that waits for a file while others wait for it is lost, and the file is named", () => {
  const leader = running();
  stall(leader, 14_000, ["waiting", "reading", "waiting"]);
  assert.doesNotMatch(leader.said(), /lost/);
  stall(leader, 16_000, ["waiting", "reading", "waiting"]);
  assert.match(
    leader.said(),
    /Worker 1 \(host b\) was lost at step 11.*it has waited for 15 s to read "\/data\/a\.txt"\./,
  );
  assert.doesNotMatch(leader.said(), /[Ww]orkers? [02].*lost/);
});

test("what is written, and a call that does not return, have ten minutes, for a flush takes long", () => {
  for (const [doing, words] of [
    ["writing", /it has waited for 10 min to write "\/data\/a\.txt"/],
    [
      "blocked",
      /for a disk for 10 min: a call to the system about "\/data\/a\.txt" does not return/,
    ],
  ] as const) {
    const leader = running();
    stall(leader, 595_000, ["waiting", doing, "waiting"]);
    assert.doesNotMatch(leader.said(), /lost/);
    stall(leader, 601_000, ["waiting", doing, "waiting"]);
    assert.match(leader.said(), words);
  }
});

test("members that all wait for files are not lost, and people are told once a minute", () => {
  const leader = running();
  stall(leader, 150_000, ["reading", "reading", "writing"]);
  const told =
    leader.said().match(/The run waits at step 11: worker \d .*? to read "\/data/g) ?? [];
  assert.equal(told.length, 3, leader.said());
  assert.doesNotMatch(leader.said(), /lost|anew/);
});

test("members that all wait for each other meet anew", () => {
  const leader = running().pass(2_000, [], "waiting");
  assert.match(
    leader.said(),
    /^Generation 1 is formed anew, because all its members have waited for each other at step 11 for 1\.5 s\./,
  );
});
