import assert from "node:assert/strict";
import { test } from "node:test";
import type { StateStore } from "../durable/index.ts";
import { firstState } from "../membership/index.ts";
import { HistoryKeeper } from "./history.ts";
import { Keeper } from "./keeper.ts";

/** A keeper whose store answers when it is told to. */
function keeping() {
  let answer: () => void = () => undefined;
  const store: StateStore = {
    place: "/mnt/state",
    term: 1,
    last: undefined,
    write: () =>
      new Promise((resolve) => {
        answer = resolve;
      }),
    close: () => Promise.resolve(),
  };
  const { history } = new HistoryKeeper(() => 0);
  const of = { group: "g", job: "j", listensAt: undefined, begun: undefined, history };
  let tell: (text: string) => void = () => undefined;
  const told = new Promise<string>((resolve) => {
    tell = resolve;
  });
  const keeper = new Keeper({
    store,
    run: () => ({ ...of, state: firstState(0) }),
    notice: tell,
    fenced: assert.fail,
    longMs: 1,
  });
  return { keeper, told, answer: () => answer() };
}

const START = { kind: "start", worker: 0, place: "b/0", node: "b" } as const;

test("a store that does not answer is told, and what waits for it is done when it answers", async () => {
  const { keeper, told, answer } = keeping();
  let isDone: () => void = () => undefined;
  const done = new Promise<void>((resolve) => {
    isDone = resolve;
  });
  let hasActed = false;
  keeper.follow([START], () => {
    hasActed = true;
    isDone();
  });
  assert.match(await told, /has not been stored in "\/mnt\/state" for 0\.001 s/);
  assert.equal(hasActed, false);
  answer();
  await done;
});

test("a run that has ended does not wait for a store that does not answer", () => {
  const { keeper } = keeping();
  const did: string[] = [];
  keeper.follow([START], () => did.push("start"));
  const verdict = { outcome: "finished", requeue: false, text: "All are done." } as const;
  keeper.follow([{ kind: "end", verdict }], () => did.push("end"));
  assert.deepEqual(did, ["end"]);
});
