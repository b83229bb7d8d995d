import assert from "node:assert/strict";
import { test } from "node:test";
import { stopOnSignals } from "./signals.ts";

function trial(
  body: (send: (name: NodeJS.Signals, atMs: number) => void) => void,
  outlivesTerminal = false,
): {
  status: number;
  aborted: boolean;
  asked: number;
  killed: readonly NodeJS.Signals[];
} {
  let [nowMs, asked] = [0, 0];
  const killed: NodeJS.Signals[] = [];
  const stop = stopOnSignals(() => asked++, {
    now: () => nowMs,
    kill: (name) => killed.push(name),
    outlivesTerminal: () => outlivesTerminal,
  });
  try {
    body((name, atMs) => {
      nowMs = atMs;
      process.emit(name, name);
    });
    return { status: stop.status(), aborted: stop.signal.aborted, asked, killed };
  } finally {
    stop.end();
  }
}

test("the first signal asks for a stop once, and a second one right after it does not count", () => {
  const { status, aborted, asked, killed } = trial((send) => {
    send("SIGINT", 100);
    send("SIGINT", 130);
  });
  assert.deepEqual(
    { status, aborted, asked, killed },
    { status: 130, aborted: true, asked: 1, killed: [] },
  );
});

test("a second signal later ends the process by that signal", () => {
  const { status, asked, killed } = trial((send) => {
    send("SIGTERM", 0);
    send("SIGINT", 2000);
  });
  assert.deepEqual({ status, asked, killed }, { status: 143, asked: 1, killed: ["SIGINT"] });
});

test("after the handler is removed, signals have their usual effect", () => {
  const before = process.listenerCount("SIGINT");
  trial(() => assert.equal(process.listenerCount("SIGINT"), before + 1));
  assert.equal(process.listenerCount("SIGINT"), before);
});

test("closing the terminal asks for a stop, unless the process is to outlive it", () => {
  const hangUp = (outlives: boolean) => trial((send) => send("SIGHUP", 0), outlives);
  const { status, aborted } = hangUp(false);
  assert.deepEqual({ status, aborted }, { status: 129, aborted: true });
  assert.equal(hangUp(true).aborted, false);
});
