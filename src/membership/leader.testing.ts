/** The leader of a run for tests, which say what happens to its workers. */

import type { Doing } from "./beats.ts";
import { BEAT_MS } from "./bounds.ts";
import { decide, firstState } from "./decide.ts";
import type { Action, Decision, MembershipEvent, MembershipOptions, Verdict } from "./types.ts";

/** A leader that is told what happens; workers that are not named as silent beat by themselves. */
export class Leader {
  readonly options: MembershipOptions;
  state = firstState(0);
  now = 0;
  text = "";
  /** All that was told. */
  readonly told: Extract<Action, { readonly kind: "tell" }>[] = [];
  actions: readonly Action[] = [];

  constructor(options: Partial<MembershipOptions> & { readonly local?: number } = {}) {
    const { local = 3, minWorkers = 1, maxWorkers = Math.max(1, local), together = 1 } = options;
    const places = Array.from({ length: local }, (_, i) => ({ name: `b/${i}`, node: "b" }));
    this.options = { minWorkers, maxWorkers, together, places };
    this.hear({ kind: "time" });
  }

  hear(event: MembershipEvent): Decision {
    const decision = decide(this.now, this.state, event, this.options);
    this.state = decision.state;
    this.actions = decision.actions;
    this.text += ` ${decision.reason}`;
    this.told.push(...decision.actions.filter((action) => action.kind === "tell"));
    return decision;
  }

  /** Lets time pass, in beats. */
  pass(ms: number, silent: readonly number[] = [], doing: Doing = "other"): this {
    const all: Action[] = [];
    const from = this.now;
    for (const end = this.now + ms; this.now < end; ) {
      this.now = Math.min(end, this.now + BEAT_MS);
      const ids = this.state.workers.map(({ id }) => id).filter((id) => !silent.includes(id));
      const progress = { doing, stillMs: this.now - from };
      const beats = ids.map((worker) => ({ worker, progress }));
      all.push(...this.hear({ kind: "beats", beats }).actions);
    }
    this.actions = all;
    return this;
  }

  ready(...ids: readonly number[]): this {
    const generation = this.state.generation.number;
    for (const worker of ids) {
      this.hear({ kind: "ready", worker, generation, step: this.state.committed });
    }
    return this;
  }

  /** Commits steps of 100 ms. */
  steps(count: number): this {
    for (let i = 0; i < count; i++) {
      this.now += 100;
      this.beat();
      const worker = this.members[0] as number;
      const generation = this.state.generation.number;
      const step = this.state.committed + 1;
      this.hear({ kind: "committed", worker, generation, step });
    }
    return this;
  }

  beat(): void {
    this.pass(0.001);
  }

  kill(worker: number): Decision {
    return this.hear({ kind: "ended", worker, status: null, signal: "SIGKILL" });
  }

  fail(worker: number, code = "DIVERGED", text = "the loss is not finite"): Decision {
    this.hear({ kind: "failed", worker, code, text, own: true });
    return this.hear({ kind: "ended", worker, status: 1, signal: null });
  }

  get members(): number[] {
    return this.state.generation.members.map(({ worker }) => worker);
  }

  did(kind: Action["kind"]): Action | undefined {
    return this.actions.find((action) => action.kind === kind);
  }

  verdict(): Verdict | undefined {
    const found = this.did("end");
    return found?.kind === "end" ? found.verdict : undefined;
  }

  /** What was told since the last call. */
  said(): string {
    const { text } = this;
    this.text = "";
    return text.trim();
  }
}

/** A run of some workers of host b that has committed ten steps. */
export function running(workers = 3, options: Partial<MembershipOptions> = {}): Leader {
  const leader = new Leader({ local: workers, ...options });
  const ids = leader.state.workers.map(({ id }) => id);
  leader.ready(...ids).steps(10);
  leader.said();
  return leader;
}
