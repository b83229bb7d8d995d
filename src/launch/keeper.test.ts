import assert from "node:assert/strict";
import { test } from "node:test";
import type { StateStore } from "../durable/index.ts";
import { firstState } from "../membership/index.ts";
import { HistoryKeeper } from "./history.ts";
import { Keeper } from "./keeper.ts";

test("a store that does not answer is told, and what waits for it is done when it answers", async () => {
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
  let isDone: () => void = () => undefined;
  const done = new Promise<void>((resolve) => {
    isDone = resolve;
  });
  let hasActed = false;
  const start = { kind: "start", worker: 0, place: "b/0", node: "b" } as const;
  keeper.follow([start], () => {
    hasActed = true;
    isDone();
  });
  assert.match(await told, /has not been stored in "\/mnt\/state" for 0\.001 s/);
  assert.equal(hasActed, false);
  answer();
  await done;
});
