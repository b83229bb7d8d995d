import assert from "node:assert/strict";
import { test } from "node:test";
import { drawFaults, type Fault, faultsIn, KINDS, kindsOf, lineOf } from "./faults.ts";

test("all kinds are possible on Linux, and all but flipped bits elsewhere", () => {
  const all = Object.keys(KINDS);
  assert.deepEqual(kindsOf(all, "linux"), all);
  const others = all.filter((kind) => kind !== "bit-flip");
  assert.deepEqual(kindsOf(others, "darwin"), others);
  assert.throws(() => kindsOf(["bit-flip"], "win32"), {
    code: "INVALID_OPTION",
    message: /possible on Linux only/,
  });
});

test("an unknown kind is refused, and the others are named", () => {
  assert.throws(() => kindsOf(["earthquake"], "linux"), {
    code: "INVALID_OPTION",
    message: /There is no fault "earthquake".*\n.*kill, stop.*coordinator/,
  });
});

test("the same seed draws the same faults; partitions are shorter and longer than their detection", () => {
  const draws = () => {
    const all = drawFaults(7, { everyMs: 1000, kinds: ["kill", "partition"] });
    return Array.from({ length: 200 }, () => all.next().value);
  };
  assert.deepEqual(draws(), draws());
  const lengths = draws().map(({ ms }) => ms);
  assert.ok(lengths.every((ms) => ms >= 500 && ms <= 18_000));
  for (const [least, most] of [
    [500, 1500],
    [1500, 10_000],
    [10_000, 18_000],
  ] as const) {
    const within = lengths.filter((ms) => ms >= least && ms < most).length;
    assert.ok(within >= 20, `${within} of 200 last from ${least} to ${most} ms`);
  }
});

test("a fault is read as it was written; each names a worker, and only the launcher's names none", () => {
  const faults: Fault[] = [
    { step: 3, worker: 1, kind: "kill", seconds: 1.5 },
    { step: 5, kind: "coordinator", seconds: 2 },
    { step: 7, worker: 0, kind: "partition", seconds: 3, ms: 700 },
  ];
  assert.deepEqual(faultsIn(faults.map(lineOf).join(""), "chaos.jsonl"), faults);
  for (const wrong of [
    { ...faults[0], worker: undefined },
    { ...faults[1], worker: 0 },
    { ...faults[0], ms: 700 },
    { ...faults[2], ms: undefined },
  ]) {
    assert.throws(() => faultsIn(`\n${JSON.stringify(wrong)}\n`, "chaos.jsonl"), {
      code: "FILE_CORRUPT",
      message: /^Line 2 of "chaos.jsonl" is not a fault/,
    });
  }
});
