/**
 * Leads the membership of a run on this machine: starts its workers, tells them of their
 * generations, replaces those that are lost, and ends the run. What to do is decided in
 * `membership/`, by a pure function; here it is done.
 */
import { randomBytes } from "node:crypto";
import { LockstepError } from "../errors.ts";
import {
  type Action,
  BEAT_MS,
  decide,
  firstState,
  type MembershipEvent,
  type MembershipOptions,
  type MembershipState,
  type Verdict,
} from "../membership/index.ts";
import { type Assignment, isConsequence } from "../protocol/index.ts";
import type { TrainResult } from "../run/index.ts";
import type { EventSink } from "../telemetry/index.ts";
import { processSign } from "../transport/index.ts";
import { atMost, SAVE_MS } from "./at-most.ts";
import { HistoryKeeper } from "./history.ts";
import { type OtherMessage, WorkerProcess } from "./process.ts";
import { errorOf } from "./worker-error.ts";

export interface SuperviseOptions {
  readonly membership: MembershipOptions;
  /** What a worker is given; the rest is told by generation. */
  readonly assignment: Omit<Assignment, "rank" | "meeting" | "workers" | "job">;
  /** The folder of the job, once it is made. */
  readonly job: Promise<string>;
  readonly onEvent: EventSink;
  /** Aborting it asks for a clean stop. */
  readonly signal: AbortSignal;
}

/** @throws the error by which a worker has ended; PEER_LOST when too many workers are lost */
export async function supervise(options: SuperviseOptions): Promise<TrainResult["outcome"]> {
  const supervisor = new Supervisor(options);
  try {
    return await supervisor.outcome;
  } finally {
    await supervisor.close();
  }
}

/** What is told of every run that nothing happens to. */
const PLAIN = ["started", "joined", "spare", "regroup", "ended"];

class Supervisor {
  readonly outcome: Promise<TrainResult["outcome"]>;
  readonly #options: SuperviseOptions;
  readonly #group = `lockstep-${process.pid}-${randomBytes(6).toString("hex")}`;
  readonly #workers = new Map<number, WorkerProcess>();
  readonly #all: WorkerProcess[] = [];
  readonly #beats = new Set<number>();
  readonly #signs = new Map<number, string>();
  readonly #look: NodeJS.Timeout;
  readonly #onStop = () => this.#stop();
  #state: MembershipState = firstState(performance.now());
  #timer: NodeJS.Timeout | undefined;
  #lastStep = 0;
  #isOver = false;
  readonly #history = new HistoryKeeper(() => performance.now());
  #resolve: (outcome: TrainResult["outcome"]) => void = () => undefined;
  #reject: (error: unknown) => void = () => undefined;

  constructor(options: SuperviseOptions) {
    this.#options = options;
    this.outcome = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    options.job.catch((error: unknown) => this.#end(() => this.#reject(error)));
    options.signal.addEventListener("abort", this.#onStop, { once: true });
    this.#look = setInterval(() => this.#listen(), BEAT_MS);
    this.#take({ kind: "time" });
  }

  /** Ends all workers that are left. */
  async close(): Promise<void> {
    this.#isOver = true;
    clearTimeout(this.#timer);
    clearInterval(this.#look);
    this.#options.signal.removeEventListener("abort", this.#onStop);
    for (const worker of this.#all) worker.kill();
    await Promise.all(this.#all.map(({ ended }) => ended));
  }

  #take(event: MembershipEvent): void {
    if (this.#isOver) return;
    const { membership } = this.#options;
    const { state, actions, wakeAt } = decide(performance.now(), this.#state, event, membership);
    this.#state = state;
    for (const action of actions) {
      this.#act(action);
      if (this.#history.take(action)) this.#tellHistory();
    }
    clearTimeout(this.#timer);
    if (wakeAt === undefined || this.#isOver) return;
    const wait = Math.max(0, wakeAt - performance.now());
    this.#timer = setTimeout(() => this.#take({ kind: "time" }), Math.min(wait, 2 ** 30));
  }

  #act(action: Action): void {
    switch (action.kind) {
      case "start":
      case "admit":
        return this.#start(action.worker);
      case "kill":
        return this.#workers.get(action.worker)?.kill();
      case "regroup": {
        const { generation, when } = action;
        for (const id of action.workers) {
          this.#workers.get(id)?.tell({ kind: "regroup", generation, when });
        }
        return;
      }
      case "form": {
        const { number: generation, members } = action.generation;
        for (const [rank, { worker }] of members.entries()) {
          this.#workers
            .get(worker)
            ?.tell({ kind: "form", generation, rank, workers: members.length });
        }
        return;
      }
      case "dismiss":
        return this.#workers.get(action.worker)?.kill();
      case "end":
        return this.#end(() => this.#conclude(action.verdict));
      case "tell":
        if (this.#isWorthTelling(action)) {
          const { about, worker, text } = action;
          const whose = worker === undefined ? {} : { worker };
          this.#options.onEvent({ type: "membership", about, ...whose, text });
        }
        return;
      case "refuse":
    }
  }

  #isWorthTelling({ about }: Extract<Action, { readonly kind: "tell" }>): boolean {
    const isFirst = this.#state.generation.number <= 1 && about === "generation";
    return !isFirst && !PLAIN.includes(about);
  }

  #start(id: number): void {
    const worker = new WorkerProcess(id, (message) => this.#hear(id, message));
    this.#workers.set(id, worker);
    this.#all.push(worker);
    if (this.#options.signal.aborted) worker.stop();
    void this.#options.job.then(
      (job) => {
        const { assignment, membership } = this.#options;
        const meeting = { kind: "generations", group: this.#group } as const;
        const workers = membership.maxWorkers;
        worker.start({ ...assignment, job, meeting, workers, rank: id });
      },
      () => undefined,
    );
    void worker.failed.then((error) => {
      if (worker.crash !== undefined) return;
      const { code = "BUG", text } = error;
      if (isConsequence(error)) {
        this.#take({ kind: "failed", worker: id, code, text, own: false });
      } else void this.#fail(worker);
    });
    void worker.ended.then(() => {
      if (worker.outcome !== undefined) this.#take({ kind: "done", worker: id });
      const words = worker.lastWords;
      if (worker.crash !== undefined && words !== "" && !this.#isOver) {
        this.#options.onEvent({ type: "notice", text: `Worker ${id} said at last:\n    ${words}` });
      }
      const { status = null, signal = null } = worker.end ?? {};
      this.#take({ kind: "ended", worker: id, status, signal });
    });
  }

  #hear(id: number, message: OtherMessage): void {
    switch (message.kind) {
      case "beat":
        this.#beats.add(id);
        return;
      case "ready":
        return this.#take({ ...message, worker: id });
      case "lost": {
        const lost = this.#state.generation.members[message.rank]?.worker;
        if (lost === undefined || message.generation !== this.#state.generation.number) return;
        const { generation } = message;
        return this.#take({ kind: "reported", by: id, worker: lost, generation });
      }
      case "event": {
        const { event } = message;
        if (event.type === "step") {
          const { number: generation } = this.#state.generation;
          this.#take({ kind: "committed", worker: id, generation, step: event.step });
          if (this.#history.committed()) this.#tellHistory();
          // A new leader may tell of a step that the one before has told of.
          if (event.step <= this.#lastStep) return;
          this.#lastStep = event.step;
        }
        if (event.type === "repeated") {
          this.#history.repeated();
          this.#tellHistory();
        }
        this.#options.onEvent(event);
        return;
      }
      case "listening":
    }
  }

  /** Looks for signs of life: beats of the event loop, or processor time that was used. */
  #listen(): void {
    for (const [id, worker] of this.#workers) {
      const sign = worker.pid === undefined ? undefined : processSign(worker.pid);
      if (sign !== undefined && sign !== this.#signs.get(id)) this.#beats.add(id);
      if (sign !== undefined) this.#signs.set(id, sign);
    }
    const { number: generation } = this.#state.generation;
    const beats = [...this.#beats].map((worker) => ({ worker, generation }));
    this.#beats.clear();
    if (beats.length > 0) this.#take({ kind: "beats", beats });
    for (const [worker, { isStopped }] of this.#workers) {
      if (isStopped) this.#take({ kind: "stopped", worker });
    }
  }

  #tellHistory(): void {
    const { history } = this.#history;
    for (const worker of this.#workers.values()) worker.tell({ kind: "history", history });
  }

  #stop(): void {
    for (const worker of this.#workers.values()) worker.stop();
  }

  /**
   * A worker has ended by an error of its own: that is the run's, and would only come again. The
   * leader of the generation saves what was committed.
   */
  async #fail(failed: WorkerProcess): Promise<void> {
    if (this.#isOver) return;
    this.#isOver = true;
    for (const worker of this.#workers.values()) worker.stop(true);
    const leader = this.#workers.get(this.#state.generation.members[0]?.worker ?? -1);
    await atMost(SAVE_MS, leader?.ended ?? Promise.resolve());
    this.#reject(errorOf(failed));
  }

  #end(conclude: () => void): void {
    if (this.#isOver) return;
    this.#isOver = true;
    conclude();
  }

  #conclude({ outcome, worker, text }: Verdict): void {
    const outcomes = this.#all.flatMap((process) => process.outcome ?? []);
    if (outcome === "finished") {
      this.#resolve(outcomes.find((own) => own !== "followed") ?? "stopped");
      return;
    }
    const fields = worker === undefined ? {} : { worker };
    this.#reject(new LockstepError("PEER_LOST", text, { fields }));
  }
}
