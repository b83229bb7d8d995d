import assert from "node:assert/strict";
import { test } from "node:test";
import type { RunEvent, RunStarted } from "../telemetry/index.ts";
import { Telling } from "./telling.ts";

const begun: RunStarted = {
  type: "started",
  name: "tiny",
  out: "runs/tiny",
  model: "gpt",
  parameters: 9,
  data: "words",
  engine: "reference",
  workers: 2,
  threads: 1,
  shares: [2, 2],
  steps: 60,
  batch: 4,
  firstStep: 0,
  seconds: 1,
  notes: [],
};

function stopped(steps: number, saved: number): RunEvent[] {
  const told: RunEvent[] = [];
  const telling = new Telling((event) => told.push(event));
  telling.pass(begun);
  for (let step = 1; step <= steps; step++) {
    const numbers = { loss: 1, gradientNorm: 1, learningRate: 1, tokensPerSecond: 1, seconds: 1 };
    telling.pass({ type: "step", step, steps: 60, ...numbers } as unknown as RunEvent);
  }
  told.length = 0;
  telling.stoppedAt(saved);
  return told;
}

test("a run that is stopped when nobody holds its state says which steps are lost", () => {
  const text = "After step 5, 2 steps are lost with the workers that held their state.";
  const end = { type: "stopped", step: 5, steps: 60, out: "runs/tiny" };
  assert.deepEqual(stopped(7, 5), [
    { type: "notice", text },
    { ...end, files: ["checkpoints", "metrics.jsonl"] },
  ]);
  assert.deepEqual(
    stopped(1, 0).map((event) => (event.type === "notice" ? event.text : event.type)),
    ["After step 0, one step is lost with the workers that held their state.", "stopped"],
  );
  assert.equal(stopped(5, 5).length, 1);
});
