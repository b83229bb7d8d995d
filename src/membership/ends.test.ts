/** When a run ends, and whether it may be started again. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Leader, running } from "./leader.testing.ts";

test("an error that every worker has by itself ends the run, and says not to start it again", () => {
  const leader = running();
  leader.fail(0);
  leader.fail(1);
  assert.equal(leader.verdict(), undefined);
  leader.hear({ kind: "failed", worker: 2, code: "DIVERGED", text: "the loss is NaN", own: true });
  assert.equal(leader.verdict()?.requeue, false);
  assert.equal(leader.verdict()?.code, "DIVERGED");
  assert.match(
    leader.verdict()?.text ?? "",
    /workers 0, 1 and 2 failed at step 11 by errors of their own \(none is left\): the loss is not finite\. Do not start it again/,
  );
});

test("an error that one worker has costs that worker, and the run goes on", () => {
  const leader = running();
  leader.fail(1, "IO", "its disk is broken");
  leader.ready(0, 2).steps(5);
  assert.deepEqual([leader.members, leader.state.phase], [[0, 2], "running"]);
  assert.match(leader.said(), /set aside for 1 s, because its worker was lost/);
});

test("the same error in three generations in a row, without a step between, is the run's", () => {
  const leader = running();
  for (const worker of [0, 1]) {
    leader.fail(worker);
    leader.ready(...[0, 1, 2].filter((id) => id > worker));
  }
  leader.hear({ kind: "failed", worker: 2, code: "DIVERGED", text: "the loss is NaN", own: true });
  assert.equal(leader.verdict()?.requeue, false);
});

test("the death of all workers at once is no error of theirs: the run starts them anew", () => {
  const leader = running();
  for (const worker of [0, 1, 2]) leader.kill(worker);
  assert.equal(leader.actions.filter(({ kind }) => kind === "start").length, 3);
  leader.said();
  for (const worker of [3, 4, 5]) {
    leader.hear({ kind: "ready", worker, generation: 0, step: 8 });
  }
  assert.match(
    leader.said(),
    /no worker that lives holds the state after step 10, so steps 9 to 10 are computed again/,
  );
  assert.equal(leader.state.committed, 8);
});

test("too many losses without a committed step between end the run", () => {
  for (const [signal, requeue] of [
    ["SIGKILL", true],
    ["SIGSEGV", false],
  ] as const) {
    const leader = new Leader({ local: 1 });
    for (let worker = 0; leader.state.phase !== "ended"; worker++) {
      assert.ok(worker < 6);
      leader.pass(300_000);
      leader.hear({ kind: "ready", worker, generation: 0, step: 0 });
      leader.hear({ kind: "ended", worker, status: null, signal });
    }
    assert.equal(leader.verdict()?.requeue, requeue);
    assert.match(leader.verdict()?.text ?? "", /set back 6 times after step 0 without a newly/);
  }
});

test("the run is finished when every member is done", () => {
  const leader = running(2);
  leader.hear({ kind: "done", worker: 1 });
  leader.hear({ kind: "ended", worker: 1, status: 0, signal: null });
  assert.deepEqual([leader.verdict(), leader.did("start")], [undefined, undefined]);
  leader.hear({ kind: "done", worker: 0 });
  assert.deepEqual([leader.verdict()?.outcome, leader.verdict()?.requeue], ["finished", false]);
  const { actions, wakeAt } = leader.hear({ kind: "time" });
  assert.deepEqual([actions, wakeAt], [[], undefined]);
});
