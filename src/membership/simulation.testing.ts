/**
 * A run of simulated workers, led by `decide`, on a simulated clock: messages take time, workers
 * die, stand still, fail and leave. After each decision it is checked what must hold in any history.
 */
import assert from "node:assert/strict";
import type { Doing } from "./beats.ts";
import { BEAT_MS } from "./bounds.ts";
import { checkDecided, checkFormed } from "./checks.testing.ts";
import { SimulatedClock } from "./clock.testing.ts";
import { decide, firstState } from "./decide.ts";
import { newProcess, type Process } from "./process.testing.ts";
import type {
  Action,
  Generation,
  MembershipEvent,
  MembershipOptions,
  MembershipState,
  Verdict,
} from "./types.ts";

export interface SimulationOptions extends MembershipOptions {
  readonly stepMs: number;
  readonly seed: number;
}

export class Simulation extends SimulatedClock {
  readonly options: SimulationOptions;
  readonly processes = new Map<number, Process>();
  readonly formed: Generation[] = [];
  readonly told: string[] = [];
  state: MembershipState;
  verdict: Verdict | undefined;
  /** The furthest step that was committed, and the generation that committed last. */
  committed = 0;
  committedBy = 0;
  commits = 0;
  /** Until then nobody calls the leader. */
  leaderSleepsUntil = 0;
  /** Workers that cannot be killed, only refused. */
  readonly unreachable = new Set<number>();
  /** When the last message to each worker arrives. */
  readonly #arrivals = new Map<number, number>();
  #wakeAt = 0;
  #jumped = 0;
  #decisions = 0;

  constructor(options: SimulationOptions) {
    super(options.seed);
    this.options = options;
    this.state = firstState(this.now);
    this.hear({ kind: "time" });
    this.every(BEAT_MS, () => this.#beat());
    this.every(options.stepMs, () => this.#commit());
  }

  /** Lets time pass, or until something holds. Returns whether it does. */
  pass(ms: number, until: () => boolean = () => false): boolean {
    const end = this.now + ms;
    while (!until()) {
      const wake = Math.max(this.#wakeAt, this.leaderSleepsUntil);
      if (Math.min(this.nextAt, wake) > end) {
        this.now = end;
        return until();
      }
      if (this.nextAt <= wake) this.runNext();
      else {
        this.now = Math.max(this.now, wake);
        this.hear({ kind: "time" });
      }
    }
    return true;
  }

  /** The caller's clock jumps. */
  jump(ms: number): void {
    this.#jumped += ms;
  }

  living(): Process[] {
    return [...this.processes.values()].filter(({ isAlive }) => isAlive);
  }

  /** Tells the leader of an event, at once, and carries out what it decides. */
  hear(event: MembershipEvent): void {
    if (this.now < this.leaderSleepsUntil) {
      const late = this.leaderSleepsUntil - this.now;
      if (event.kind !== "time") this.after(late, () => this.hear(event));
      return;
    }
    if ("worker" in event && this.processes.get(event.worker)?.isRefused) return;
    this.#decide(event);
  }

  /** As `hear`, also of a worker that is refused. */
  #decide(event: MembershipEvent): void {
    // Every seventh time, because it takes most of the time of a simulation.
    const isWatched = this.#decisions++ % 7 === 0;
    const before = isWatched ? JSON.stringify(this.state) : "";
    const now = this.now + this.#jumped;
    const decision = decide(now, this.state, event, this.options);
    if (isWatched) assert.equal(JSON.stringify(this.state), before, "the given state stays so");
    const { actions, wakeAt, state } = decision;
    checkDecided(decision, now);
    this.state = isWatched ? (JSON.parse(JSON.stringify(state)) as MembershipState) : state;
    this.#wakeAt = wakeAt === undefined ? Number.POSITIVE_INFINITY : this.now + wakeAt - now;
    for (const action of actions) this.#carryOut(action);
  }

  #beat(): void {
    const beats = this.living()
      .filter(({ isStopped, isRefused }) => !isStopped && !isRefused)
      .map((process) => {
        const { id, generation } = process;
        const stands = generation !== undefined && !this.#canCommit(generation);
        if (!stands && !process.isHung) process.movedAt = this.now;
        const doing: Doing = process.isHung ? "computing" : stands ? "waiting" : "other";
        const progress = { doing, stillMs: this.now - process.movedAt };
        return { worker: id, progress };
      });
    if (beats.length > 0) this.hear({ kind: "beats", beats });
    for (const { id, isStopped, isRefused } of this.living()) {
      const isSeen = isStopped && !isRefused && !this.unreachable.has(id);
      if (isSeen) this.hear({ kind: "stopped", worker: id });
    }
  }

  /** Continues a stopped process. Now and then that does not help. */
  #wake(id: number): void {
    const process = this.processes.get(id);
    assert.ok(process !== undefined, "a worker that was started");
    if (this.random(10) === 0 || this.unreachable.has(id)) return;
    this.after(this.random(20), () => this.resume(process));
  }

  #membersIn(generation: number): (Process | undefined)[] {
    const formed = this.formed.find(({ number }) => number === generation);
    return (formed?.members ?? []).map(({ worker }) => this.processes.get(worker));
  }

  #canCommit(generation: number): boolean {
    return this.#membersIn(generation).every(
      (member) =>
        member?.isAlive &&
        !member.isStopped &&
        !member.isHung &&
        !member.isRefused &&
        member.generation === generation,
    );
  }

  /** Each generation whose members are all there commits a step. */
  #commit(): void {
    const able = this.formed.slice(-8).filter(({ number }) => this.#canCommit(number));
    assert.ok(able.length <= 1, "only one generation can commit");
    const [generation] = able;
    if (generation === undefined) return;
    assert.ok(generation.number >= this.committedBy, "no older generation commits");
    this.committedBy = generation.number;
    const members = this.#membersIn(generation.number) as Process[];
    const step = Math.max(...members.map((member) => member.step)) + 1;
    this.committed = Math.max(this.committed, step);
    this.commits += 1;
    const { number } = generation;
    for (const member of members) {
      this.after(this.random(10), () => {
        if (!member.isAlive || member.generation !== number) return;
        member.step = step;
        const isFirst = member === members[0];
        if (isFirst || this.random(1) < 0.2) {
          this.#say({ kind: "committed", worker: member.id, generation: number, step });
        }
        if (member.leavesAfterStep) this.leave(member);
      });
    }
  }

  #say(event: MembershipEvent): void {
    this.after(this.random(20), () => this.hear(event));
  }

  /** Leaves its generation, and says so. */
  leave(member: Process): void {
    const { id, step, lastGeneration, generation } = member;
    if (generation === undefined || !member.isAlive || member.isHung) return;
    [member.generation, member.leavesAfterStep] = [undefined, false];
    this.#say({ kind: "ready", worker: id, generation: lastGeneration, step });
  }

  /** The process dies, and its neighbours may notice before the leader does. */
  die(process: Process, status: number | null, signal: string | null): void {
    if (!process.isAlive) return;
    process.isAlive = false;
    const { id, generation } = process;
    this.#say({ kind: "ended", worker: id, status, signal });
    if (generation === undefined) return;
    for (const member of this.#membersIn(generation)) {
      if (member === undefined || !member.isAlive || this.random(1) < 0.5) continue;
      this.after(this.random(30), () => {
        if (member.generation !== generation || member.isStopped) return;
        if (this.random(1) < 0.5) {
          this.#say({ kind: "reported", by: member.id, worker: id, generation });
        } else this.leave(member);
      });
    }
  }

  stop(process: Process): void {
    process.isStopped = true;
  }

  /** A member computes something that does not end. */
  hang(process: Process): void {
    process.isHung = process.generation !== undefined;
  }

  resume(process: Process): void {
    process.isStopped = false;
    if (!process.isAlive) return;
    for (const act of process.inbox.splice(0)) act();
  }

  fail(process: Process, code: string, own = true): void {
    if (!process.isAlive || process.isStopped) return;
    const { id } = process;
    process.isAlive = false;
    const text = `it failed with ${code}`;
    this.hear({ kind: "failed", worker: id, code, text, own });
    this.after(this.random(20), () =>
      this.hear({ kind: "ended", worker: id, status: 1, signal: null }),
    );
  }

  /** A message to a worker, which is taken when it runs, and after those that were sent before. */
  #ask(worker: number, act: (process: Process) => void): void {
    const arrival = Math.max(this.now + this.random(10), this.#arrivals.get(worker) ?? 0);
    this.#arrivals.set(worker, arrival);
    this.after(arrival - this.now, () => {
      const process = this.processes.get(worker);
      if (process === undefined || !process.isAlive) return;
      if (process.isStopped) process.inbox.push(() => process.isAlive && act(process));
      else act(process);
    });
  }

  #carryOut(action: Action): void {
    switch (action.kind) {
      case "tell":
        this.told.push(action.text);
        return;
      case "start":
      case "admit":
        return this.#launch(action.worker, action.place);
      case "kill":
        return this.#kill(action.worker);
      case "wake":
        return this.#wake(action.worker);
      case "regroup":
        for (const id of action.workers) {
          this.#ask(id, (process) => {
            if (process.lastGeneration !== action.generation) return;
            if (action.when === "now") this.after(this.random(100), () => this.leave(process));
            else process.leavesAfterStep = true;
          });
        }
        return;
      case "dismiss":
        return this.#ask(action.worker, (process) => this.die(process, 0, null));
      case "form":
        return this.#form(action.generation);
      case "end":
        this.verdict = action.verdict;
        for (const process of this.processes.values()) process.isAlive = false;
        return;
      case "refuse":
        assert.ok(action.retryMs > 0);
    }
  }

  #launch(id: number, place: string): void {
    assert.ok(!this.processes.has(id), "numbers are given once");
    const process = newProcess(id, place, this.now);
    this.processes.set(id, process);
    this.after(50 + this.random(1500), () => {
      if (!process.isAlive) return;
      this.#say({ kind: "ready", worker: id, generation: 0, step: 0 });
    });
  }

  #kill(id: number): void {
    const process = this.processes.get(id);
    this.after(this.random(50), () => {
      if (process === undefined) return;
      if (this.unreachable.has(id)) {
        process.isRefused = true;
        this.#decide({ kind: "refused", worker: id });
        return;
      }
      process.isAlive = false;
      this.#say({ kind: "ended", worker: id, status: null, signal: "SIGKILL" });
    });
  }

  #form(generation: Generation): void {
    const { number, members, step } = generation;
    checkFormed(generation, this);
    this.formed.push(generation);
    for (const { worker } of members) {
      this.#ask(worker, (process) => {
        if (process.lastGeneration >= number) return;
        process.step = Math.max(step, 0);
        [process.generation, process.lastGeneration] = [number, number];
        process.leavesAfterStep = false;
        process.movedAt = this.now;
      });
    }
  }
}
