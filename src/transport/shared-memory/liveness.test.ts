import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Heart, processState } from "./liveness.ts";

const onLinux = process.platform === "linux" ? {} : { skip: "looks at /proc" };

async function withChild(code: string, body: (child: ChildProcess, pid: number) => Promise<void>) {
  const child = spawn(process.execPath, ["-e", `console.log(1);${code}`], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    await new Promise((resolve) => child.stdout?.once("data", resolve));
    await body(child, child.pid as number);
  } finally {
    child.kill("SIGKILL");
  }
}

function startOf(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, "latin1");
  return Number(text.slice(text.lastIndexOf(")") + 2).split(" ")[19]);
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

/** Returns what the heart reports at these moments, in milliseconds, with a beat for each. */
function found(heart: Heart, moments: readonly number[], beat: (now: number) => number = () => 1) {
  return moments.map((now) => heart.trouble(beat(now), now)).at(-1);
}

const seconds = (count: number) => Array.from({ length: count + 1 }, (_, second) => 1000 * second);

test("a stopped process is found after the limit, and one that continues is not", onLinux, () =>
  withChild("setInterval(() => 0, 1e6)", async (child, pid) => {
    const identity = { pid, start: startOf(pid) };
    child.kill("SIGSTOP");
    await until(() => processState(pid) === "T");
    assert.equal(found(new Heart(identity, 10_000), seconds(9)), undefined);
    assert.match(found(new Heart(identity, 10_000), seconds(11)) ?? "", /is stopped, for 1\d s/);
    // The observer was stopped too, so the gap says nothing about the other process.
    assert.equal(found(new Heart(identity, 10_000), [0, 1000, 600_000]), undefined);
    child.kill("SIGCONT");
    await until(() => processState(pid) !== "T");
    assert.equal(found(new Heart(identity, 10_000), seconds(20)), undefined);
    assert.match(found(new Heart(identity, 10_000), seconds(31)) ?? "", /no sign of life/);
    assert.equal(
      found(new Heart(identity, 10_000), seconds(100), (now) => now),
      undefined,
    );
  }),
);

test("a process whose computation blocks its event loop counts as alive", onLinux, () =>
  withChild("for (;;);", async (_, pid) => {
    const heart = new Heart({ pid, start: startOf(pid) }, 1000);
    for (let second = 0; second < 12; second++) {
      const ticks = ticksOf(pid);
      await until(() => ticksOf(pid) > ticks);
      assert.equal(heart.trouble(1, 1000 * second), undefined);
    }
  }),
);

function ticksOf(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, "latin1");
  return Number(text.slice(text.lastIndexOf(")") + 2).split(" ")[11]);
}

test("an ended process is found at once", onLinux, () =>
  withChild("", async (child, pid) => {
    const identity = { pid, start: startOf(pid) };
    child.kill("SIGKILL");
    await new Promise((resolve) => child.once("exit", resolve));
    assert.match(new Heart(identity, 10_000).trouble(1, 0) ?? "", /has ended/);
  }),
);
