/** Random histories of a run's workers: what must hold in each of them is in `Simulation`. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { runBound } from "./bounds.ts";
import { Simulation, type SimulationOptions } from "./simulation.testing.ts";
import type { MembershipEvent } from "./types.ts";

/** Faults by chance; `pick` chooses among the living workers. */
type Fault = {
  readonly kind:
    | "kill"
    | "segfault"
    | "stop"
    | "resume"
    | "hang"
    | "fail"
    | "drain"
    | "join"
    | "close"
    | "accuse"
    | "leave"
    | "sleep"
    | "jump"
    | "restore"
    | "stale"
    | "unreachable";
  readonly pick: number;
  readonly wait: number;
};

function happen(run: Simulation, { kind, pick }: Fault): void {
  const living = run.living();
  const worker = living[pick % Math.max(1, living.length)];
  if (run.verdict !== undefined) return;
  switch (kind) {
    case "join":
      return run.hear({ kind: "join", place: `far/${pick % 3}`, node: `far${pick % 2}` });
    case "sleep":
      run.leaderSleepsUntil = Math.max(run.leaderSleepsUntil, run.now + pick * 100);
      return;
    case "jump":
      return run.jump((pick - 50) * 10_000);
    case "restore":
      return run.hear({ kind: "restored" });
    default:
  }
  if (worker === undefined) return;
  const { id, lastGeneration } = worker;
  switch (kind) {
    case "kill":
      return run.die(worker, null, "SIGKILL");
    case "segfault":
      return run.die(worker, null, "SIGSEGV");
    case "stop":
      return run.stop(worker);
    case "hang":
      // Before steps are measured, nobody knows how long a run may take.
      if (run.state.pace !== undefined) run.hang(worker);
      return;
    case "resume":
      return run.resume(worker);
    case "fail":
      return run.fail(worker, pick % 2 === 0 ? "DIVERGED" : "OUT_OF_MEMORY", pick % 3 > 0);
    case "drain":
      return run.hear({ kind: "drain", worker: id, why: "its machine is needed" });
    case "close":
      return run.hear({ kind: "closed", worker: id });
    case "unreachable":
      run.unreachable.add(id);
      return run.stop(worker);
    case "leave":
      return run.leave(worker);
    case "accuse": {
      const by = living[(pick + 1) % living.length]?.id ?? id;
      return run.hear({ kind: "reported", by, worker: id, generation: lastGeneration });
    }
    case "stale": {
      const generation = lastGeneration - 1;
      const step = run.committed + 5;
      const stale: MembershipEvent[] = [
        { kind: "ready", worker: id, generation, step },
        { kind: "committed", worker: id, generation, step },
        { kind: "reported", by: id, worker: id, generation },
        { kind: "ended", worker: 9999, status: 0, signal: null },
      ];
      return run.hear(stale[pick % stale.length] as MembershipEvent);
    }
    default:
  }
}

const fault = fc.record({
  kind: fc.constantFrom<Fault["kind"]>(
    "kill",
    "kill",
    "segfault",
    "stop",
    "resume",
    "hang",
    "fail",
    "drain",
    "join",
    "join",
    "close",
    "accuse",
    "leave",
    "sleep",
    "jump",
    "restore",
    "stale",
    "unreachable",
  ),
  pick: fc.nat(100),
  wait: fc.oneof(fc.nat(60), fc.nat(3000)),
});

const settings = fc
  .record({
    minWorkers: fc.integer({ min: 1, max: 3 }),
    more: fc.nat(3),
    together: fc.constantFrom(1, 1, 2),
    local: fc.integer({ min: 0, max: 5 }),
    stepMs: fc.integer({ min: 60, max: 900 }),
    seed: fc.nat(),
  })
  .map(
    ({ minWorkers, more, together, local, stepMs, seed }): SimulationOptions => ({
      minWorkers: minWorkers * together,
      maxWorkers: (minWorkers + more) * together,
      together,
      places: Array.from({ length: local }, (_, i) => ({ name: `here/${i}`, node: `h${i % 2}` })),
      stepMs,
      seed,
    }),
  );

/** Workers of whom the leader has a wrong idea: forgotten, dead, or standing still. */
function mistakes({ state, processes }: Simulation): string[] {
  const known = new Set(state.workers.map(({ id }) => id));
  const mine = [...processes.values()].filter(({ isAlive, isRefused }) => isAlive && !isRefused);
  return [
    ...mine.filter(({ id }) => !known.has(id)).map(({ id }) => `worker ${id} is forgotten`),
    ...mine.filter(({ isStopped }) => isStopped).map(({ id }) => `worker ${id} stands still`),
    ...mine.filter(({ isHung }) => isHung).map(({ id }) => `worker ${id} hangs`),
    ...[...known]
      .filter((id) => !processes.get(id)?.isAlive)
      .map((id) => `worker ${id} is dead and not found`),
  ];
}

/** Whether a worker can still start, at once or after its rest. */
function hasCapacity({ state, options }: Simulation): boolean {
  const open = options.places.filter(({ name }) => !state.records[name]?.closed);
  const guests = state.workers.filter(
    ({ place, status, draining }) =>
      place.startsWith("far") && !draining && status !== "lost" && status !== "dismissed",
  );
  const { together = 1 } = options;
  const nodes = [...open, ...guests].map(({ node }) => node);
  const whole = [...new Set(nodes)].map((node) => {
    const own = nodes.filter((other) => other === node).length;
    return own - (own % together);
  });
  return whole.reduce((sum, own) => sum + own, 0) >= options.minWorkers;
}

test("in any history no two generations commit, nobody is forgotten, and steps go on", () => {
  const property = (options: SimulationOptions, faults: readonly Fault[]) => {
    const run = new Simulation(options);
    for (const one of faults) {
      happen(run, one);
      run.pass(one.wait);
    }
    const isOver = () => run.verdict !== undefined;
    const findsAll = () => {
      run.pass(45_000 + runBound(run.state.pace), () => isOver() || mistakes(run).length === 0);
      if (!isOver()) assert.deepEqual(mistakes(run), []);
    };
    run.pass(Math.max(0, run.leaderSleepsUntil - run.now) + 500);
    findsAll();
    if (isOver()) return assert.equal(run.state.phase, "ended");
    if (hasCapacity(run)) {
      const enough = run.commits + 3;
      assert.ok(
        run.pass(400_000, () => run.commits >= enough || isOver()),
        "steps go on",
      );
      findsAll();
    } else {
      run.pass(5_000);
      assert.equal(run.state.phase, "gathering");
      assert.match(run.told.join(" "), /The run waits/);
    }
  };
  fc.assert(fc.property(settings, fc.array(fault, { maxLength: 30 }), property), { numRuns: 1000 });
});
