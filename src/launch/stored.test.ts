/** What a launcher leaves for the next one, and what that makes of it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { decide, firstState, type MembershipState } from "../membership/index.ts";
import { NO_HISTORY } from "../telemetry/index.ts";
import { WorkerHandle } from "./handle.ts";
import { doAgain } from "./restore.ts";
import { livingOf } from "./returning.ts";
import { openStored, type StoredRun, toStore } from "./stored.ts";

const places = ["b/0", "b/1"].map((name) => ({ name, node: "b" }));
const options = { minWorkers: 1, maxWorkers: 2, places };

/** The state of a run of two workers after these events. */
function stateAfter(...events: readonly Parameters<typeof decide>[2][]): MembershipState {
  const begun = ([0, 1] as const).map(
    (worker) => ({ kind: "ready", worker, generation: 0, step: 0 }) as const,
  );
  return [{ kind: "time" } as const, ...begun, ...events].reduce<MembershipState>(
    (state, event) => decide(0, state, event, options).state,
    firstState(0),
  );
}

function runOf(state: MembershipState): StoredRun {
  const begun = undefined;
  return { group: "g", job: "j", listensAt: undefined, state, begun, history: NO_HISTORY };
}

test("a state with the longest text that a worker can send is read again", () => {
  const text = `On far: ${"x".repeat(2 ** 17)}`;
  const run = runOf(stateAfter({ kind: "failed", worker: 1, code: "IO_FAILED", text, own: true }));
  const read = openStored(JSON.parse(JSON.stringify(toStore(run))), "/state");
  assert.deepEqual(read?.state.mishaps, run.state.mishaps);
});

test("of a run that has ended, no worker is taken over", () => {
  assert.deepEqual(
    livingOf(stateAfter()),
    new Map([
      [0, "b"],
      [1, "b"],
    ]),
  );
  const done = ([0, 1] as const).map((worker) => ({ kind: "done", worker }) as const);
  const ended = stateAfter(...done);
  assert.equal(ended.phase, "ended");
  assert.equal(livingOf(ended), undefined);
});

test("a lost worker that still lives is killed by the next launcher too", () => {
  const state = stateAfter({ kind: "failed", worker: 1, code: "IO_FAILED", text: "x", own: true });
  const signals: string[] = [];
  const workers = new Map(
    [0, 1].map((number) => {
      const worker = new WorkerHandle(number, () => undefined);
      worker.body = {
        tell: () => undefined,
        signal: (name) => signals.push(`${name} to ${number}`) > 0,
      };
      return [number, worker] as const;
    }),
  );
  doAgain(state, workers, true);
  assert.deepEqual(signals, ["SIGKILL to 1"]);
});
