/**
 * Ranks as real processes: every collective, and every way in which one of them can fail the
 * others.
 */
import assert from "node:assert/strict";
import fs from "node:fs";
import { test } from "node:test";
import type { RankResult } from "./child-rank.ts";
import { type RanksOptions, runRanks } from "./ranks.ts";

const DEADLINE_MS = 8000;
const TWO_OF_TWO = [
  [0, 1],
  [2, 3],
];

for (const [transport, size, more] of [
  ["shared-memory", 2, {}],
  ["shared-memory", 5, {}],
  ["tcp", 3, {}],
  ["tcp", 2, { host: "::1", tls: true }],
  ["nodes", 4, { nodes: TWO_OF_TWO }],
] as const) {
  const how = "tls" in more ? " with TLS over IPv6" : "";
  test(`${transport}${how}: every collective between ${size} processes`, async () => {
    const results = await runRanks({ transport, size, task: "contract", ...more });
    assert.deepEqual(
      results.map((result) => result?.text ?? result?.ok),
      Array.from({ length: size }, () => true),
    );
    assertNothingLeft();
  });
}

const NODES = { transport: "nodes", size: 4, nodes: TWO_OF_TWO } as const;
const IN_PLACE = { collective: "all-gather in place" } as const;
const BY_MESSAGES = { collective: "all-gather by messages" } as const;
const ALL_TO_ALL = { collective: "all-to-all" } as const;
const FAULTS: readonly (Omit<RanksOptions, "size" | "task"> & { readonly size?: number })[] = [
  { transport: "shared-memory", ...IN_PLACE, fault: { rank: 1, call: 25, do: "die" } },
  { transport: "shared-memory", ...BY_MESSAGES, fault: { rank: 0, call: 60, do: "die" } },
  { transport: "shared-memory", ...IN_PLACE, fault: { rank: 2, call: 25, do: "abort" } },
  { transport: "tcp", ...BY_MESSAGES, fault: { rank: 1, call: 9, do: "die" } },
  { transport: "tcp", ...ALL_TO_ALL, fault: { rank: 2, call: 20, do: "die" } },
  { transport: "tcp", ...BY_MESSAGES, fault: { rank: 0, call: 12, do: "abort" } },
  { ...NODES, ...BY_MESSAGES, fault: { rank: 1, call: 9, do: "die" } },
  { ...NODES, ...ALL_TO_ALL, fault: { rank: 2, call: 30, do: "die" } },
  { ...NODES, ...IN_PLACE, fault: { rank: 3, call: 31, do: "die" } },
  { ...NODES, ...IN_PLACE, fault: { rank: 0, call: 14, do: "abort" } },
  { ...NODES, ...ALL_TO_ALL, fault: { rank: 0, call: 12, do: "abort" } },
];

for (const options of FAULTS) {
  const { transport, collective, fault } = options;
  const what = fault?.do === "die" ? "killed" : "aborting";
  test(`${transport}, ${collective}: all others name the rank that is ${what}`, async () => {
    const results = await runRanks({ size: 3, ...options, task: "loop", deadlineMs: DEADLINE_MS });
    const culprit = fault?.rank ?? -1;
    const wanted = fault?.do === "die" ? "PEER_LOST" : "ABORTED";
    for (const [rank, result] of results.entries()) {
      if (rank === culprit) continue;
      assertNames(result, wanted, culprit);
      const found = (result?.at ?? Infinity) - (results[culprit]?.at ?? 0);
      if (fault?.do === "die") assert.ok(found < 1000, `rank ${rank} found it after ${found} ms`);
    }
    assertNothingLeft();
  });
}

test("a rank that is stopped passes the deadline of the others", async () => {
  for (const transport of ["shared-memory", "tcp"] as const) {
    const results = await runRanks({
      transport,
      size: 2,
      task: "loop",
      ...BY_MESSAGES,
      deadlineMs: 1500,
      fault: { rank: 1, call: 20, do: "stop" },
      stopped: [1],
    });
    assertNames(results[0], "DEADLINE", 1);
  }
  assertNothingLeft();
});

test("a rank that is stopped is lost long before the deadline", async () => {
  const [result] = await runRanks({
    transport: "shared-memory",
    size: 2,
    task: "loop",
    ...BY_MESSAGES,
    deadlineMs: 600_000,
    silenceMs: 1000,
    fault: { rank: 1, call: 20, do: "stop" },
    stopped: [1],
  });
  assertNames(result, "PEER_LOST", 1);
  assertNothingLeft();
});

test("a rank that never comes is named", async () => {
  for (const transport of ["shared-memory", "tcp"] as const) {
    const [result] = await runRanks({
      transport,
      size: 2,
      task: "loop",
      deadlineMs: 500,
      prefix: (rank) => (rank === 1 ? ["/usr/bin/env", "true"] : []),
    });
    assertNames(result, "DEADLINE", 1);
  }
  assertNothingLeft();
});

test("a rank with a different token is refused, and both report it", async () => {
  const results = await runRanks({
    transport: "tcp",
    size: 2,
    task: "loop",
    deadlineMs: 2000,
    tokens: { 1: "a stolen secret of tests" },
  });
  assert.ok(results.some((result) => result?.code === "UNAUTHORIZED"));
  for (const [rank, result] of results.entries()) {
    assert.equal(result?.peer, 1 - rank);
    assert.match(result?.text ?? "", /a different token/);
  }
});

function assertNames(result: RankResult | undefined, code: string, peer: number): void {
  assert.deepEqual([result?.code, result?.peer], [code, peer], result?.text ?? "said nothing");
}

function assertNothingLeft(): void {
  if (process.platform !== "linux") return;
  const left = fs.readdirSync("/dev/shm").filter((file) => file.includes(`ranks-${process.pid}`));
  assert.deepEqual(left, []);
}
