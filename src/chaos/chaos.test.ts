/** What chaos does to workers, and what it tells of that. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { LocalProcess, LocalWorkers } from "../launch/index.ts";
import { NO_HISTORY } from "../telemetry/index.ts";
import { Chaos, type ChaosOptions } from "./chaos.ts";
import type { Fault, FaultKind } from "./faults.ts";

/** One worker whose process is what a test makes of it. */
function workersWith(process: Partial<LocalProcess>): LocalWorkers {
  const done = () => true;
  const whole = { signal: done, flipBit: done, failDisk: done, failLinks: done, ...process };
  return {
    list: () => [{ number: 0, place: "b/0", node: "b", isMember: true }],
    process: () => whole,
    reopen: () => undefined,
    history: NO_HISTORY,
  };
}

/** Begins the faults of one kind at once. */
function begin(
  kind: FaultKind,
  process: Partial<LocalProcess>,
  options: Partial<ChaosOptions> = {},
): Chaos {
  const chaos = new Chaos({
    seed: 1,
    everyMs: 0,
    kinds: [kind],
    most: 1,
    corrupt: () => false,
    killLauncher: () => false,
    now: () => 0,
    onFault: () => undefined,
    ...options,
  });
  chaos.attach(workersWith(process));
  chaos.committed(1);
  return chaos;
}

test("a slow worker is not left standing when the faults end", async () => {
  const signals: string[] = [];
  await new Promise<void>((resolve) => {
    const chaos = begin("slow-worker", {
      signal: (name) => {
        signals.push(name);
        if (name === "SIGSTOP") setImmediate(() => resolve(chaos.end()));
        return true;
      },
    });
  });
  assert.deepEqual(signals, ["SIGSTOP", "SIGCONT"]);
});

test("a fault that could not be done is not counted, and is tried again", async () => {
  let tries = 0;
  const faults: Fault[] = [];
  await new Promise<void>((resolve) => {
    begin(
      "kill",
      { signal: () => ++tries === 3 },
      {
        onFault: (fault) => {
          faults.push(fault);
          resolve();
        },
      },
    );
  });
  assert.deepEqual([tries, faults.length], [3, 1]);
});
