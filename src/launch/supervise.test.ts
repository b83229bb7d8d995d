/** A supervisor over workers that a test plays, without a process. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { StateStore } from "../durable/index.ts";
import { decide, firstState, type MembershipState } from "../membership/index.ts";
import type { Standing, ToWorker } from "../protocol/index.ts";
import { NO_HISTORY } from "../telemetry/index.ts";
import { atMost } from "./at-most.ts";
import type { Crew } from "./crew.ts";
import type { WorkerHandle } from "./handle.ts";
import { OVER, type StoredRun } from "./stored.ts";
import { supervise } from "./supervise.ts";

const DEADLINE_MS = 10_000;
const NODE = "b";

/** Workers that do nothing by themselves. Those that are killed end. */
class FakeCrew implements Crew {
  readonly places;
  readonly taken: ReadonlyMap<number, Standing>;
  readonly workers = new Map<number, WorkerHandle>();
  readonly told: (readonly [worker: number, kind: ToWorker["kind"]])[] = [];

  constructor(count: number, taken: readonly Standing[] = []) {
    this.places = Array.from({ length: count }, (_, at) => ({ name: `${NODE}/${at}`, node: NODE }));
    this.taken = new Map(taken.map((standing) => [standing.worker, standing]));
  }

  start(worker: WorkerHandle): void {
    const { number } = worker;
    this.workers.set(number, worker);
    worker.body = {
      tell: ({ kind }) => void this.told.push([number, kind]),
      signal: () => {
        this.end(number, "SIGKILL");
        return true;
      },
    };
  }

  adopt(workers: ReadonlyMap<number, WorkerHandle>): void {
    for (const worker of workers.values()) this.start(worker);
  }

  end(number: number, signal: string | null = null): void {
    this.workers.get(number)?.close({ status: signal === null ? 0 : null, signal, words: "" });
  }

  close(): void {
    for (const number of this.workers.keys()) this.end(number, "SIGKILL");
  }
}

/** A store that answers each write when the test says so, and at once that the run is over. */
function slowStore() {
  const writes: (() => void)[] = [];
  const store: StateStore = {
    place: "/state",
    term: 1,
    last: undefined,
    write: (state) =>
      state === OVER ? Promise.resolve() : new Promise((resolve) => writes.push(resolve)),
    close: () => Promise.resolve(),
  };
  return { store, writes };
}

function run(crew: FakeCrew, store: StateStore, last?: StoredRun, signal = new AbortController()) {
  return supervise({
    minWorkers: 1,
    maxWorkers: crew.places.length,
    crew: () => crew,
    onEvent: () => undefined,
    signal: signal.signal,
    kept: { store, group: "g", job: "j", listensAt: undefined, last },
  });
}

/** Lets what waits for settled promises happen. */
function turn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

test("a stop that was asked for while workers were taken over reaches them", async () => {
  const crew = new FakeCrew(1, [{ worker: 0, generation: 1, isReady: false, step: 3 }]);
  const options = { minWorkers: 1, maxWorkers: 1, places: crew.places };
  const state = [
    { kind: "time" } as const,
    { kind: "ready", worker: 0, generation: 0, step: 0 } as const,
  ].reduce<MembershipState>((at, event) => decide(0, at, event, options).state, firstState(0));
  const { store } = slowStore();
  const stored = { group: "g", job: "j", listensAt: undefined, state, begun: undefined };
  const controller = new AbortController();
  controller.abort(new Error("Ctrl-C"));
  const running = run(crew, store, { ...stored, history: NO_HISTORY }, controller);
  assert.deepEqual(
    crew.told.filter(([, kind]) => kind === "stop"),
    [[0, "stop"]],
  );
  crew.workers.get(0)?.hear({ kind: "done", outcome: "stopped" });
  crew.end(0);
  assert.equal(await running, "stopped");
});

test("no worker is started any more once the run has failed", async () => {
  const crew = new FakeCrew(2);
  const { store, writes } = slowStore();
  const running = run(crew, store);
  running.catch(() => undefined);
  writes.shift()?.();
  await turn();
  assert.deepEqual([...crew.workers.keys()], [0, 1]);
  crew.end(1, "SIGKILL"); // its successor waits for the state to be stored
  await turn();
  assert.equal(writes.length, 1);
  const error = { code: "NOT_FINITE", text: "the loss is not finite", fields: {} } as const;
  crew.workers.get(0)?.hear({ kind: "error", error });
  await turn();
  writes.shift()?.();
  await turn();
  assert.deepEqual([...crew.workers.keys()], [0, 1]);
  crew.end(0);
  await assert.rejects(Promise.race([running, atMost(DEADLINE_MS, new Promise(() => undefined))]), {
    code: "NOT_FINITE",
  });
});
