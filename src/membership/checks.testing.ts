/** What must hold of each decision, and of each generation, in any history of a run. */
import assert from "node:assert/strict";
import type { Process } from "./process.testing.ts";
import type { Decision, Generation, MembershipOptions, MembershipState } from "./types.ts";

/** @param now when it was decided, by the caller's clock */
export function checkDecided({ actions, reason, wakeAt, state }: Decision, now: number): void {
  assert.equal(actions.length > 0, reason !== "", `a reason for ${JSON.stringify(actions)}`);
  if (reason !== "") {
    assert.match(reason, /^[A-Z].*\.$/s);
    assert.doesNotMatch(reason, /undefined|NaN|Infinity|\.\./);
  }
  for (const action of actions) {
    if (action.kind === "tell") assert.match(action.text, /^[A-Z].*\.$/s);
  }
  if (wakeAt === undefined) assert.equal(state.phase, "ended");
  else assert.ok(wakeAt > now && wakeAt <= now + 1000, `wakes after ${wakeAt - now} ms`);
}

interface Run {
  readonly options: MembershipOptions;
  readonly processes: ReadonlyMap<number, Process>;
  /** Those that were formed before. */
  readonly formed: readonly Generation[];
  readonly state: MembershipState;
  living(): readonly Process[];
}

/** Checks a generation when it is formed, before its members know of it. */
export function checkFormed(generation: Generation, run: Run): void {
  const { number, members, step } = generation;
  const { minWorkers, maxWorkers, together = 1 } = run.options;
  assert.equal(number, (run.formed.at(-1)?.number ?? 0) + 1);
  assert.ok(members.length >= minWorkers && members.length <= maxWorkers);
  assert.equal(new Set(members.map(({ worker }) => worker)).size, members.length);
  const nodes = members.map(({ node }) => node);
  for (const node of new Set(nodes)) {
    const own = nodes.filter((other) => other === node).length;
    assert.equal(own % together, 0, `${own} members of ${node}, where ${together} belong together`);
  }
  const changes = nodes.filter((node, rank) => node !== nodes[rank - 1]).length;
  assert.equal(changes, new Set(nodes).size, "members of a node follow each other");
  for (const process of run.living()) {
    const isIn = process.generation !== undefined;
    assert.ok(!isIn || process.isRefused, `worker ${process.id} has left its generation`);
  }
  for (const { worker } of members) {
    assert.ok(!run.processes.get(worker)?.isRefused, "no member is fenced");
  }
  const isHeld = generation.holders.length > 0;
  const own = members.map((member) => member.step);
  assert.equal(step, isHeld ? Math.max(...own) : run.state.saved, "a member brings the state");
  const near = run.state.workers.filter(({ status }) => status === "leaving");
  const far = Math.max(...near.map((worker) => worker.step), 0);
  assert.ok(
    step >= far || maxWorkers === 1 || together > 1,
    "those that leave bring it if no other can",
  );
}
