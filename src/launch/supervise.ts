/**
 * Leads the membership of a run on this machine: starts its workers, tells them of their
 * generations, replaces those that are lost, and ends the run. What to do is decided in
 * `membership/`, by a pure function; here it is done.
 */
import { randomBytes } from "node:crypto";
import { LockstepError } from "../errors.ts";
import {
  type Action,
  answerToLeave,
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
import type { LocalWorker, LocalWorkers } from "./local-workers.ts";
import { type OtherMessage, WorkerProcess } from "./process.ts";
import { Telling } from "./telling.ts";

export interface SuperviseOptions {
  readonly membership: MembershipOptions;
  /** What a worker is given; the rest is told by generation. */
  readonly assignment: Omit<Assignment, "rank" | "meeting" | "workers" | "job">;
  /** The folder of the job, once it is made. */
  readonly job: Promise<string>;
  readonly onEvent: EventSink;
  /** Aborting it asks for a clean stop. */
  readonly signal: AbortSignal;
  /** Is given the workers before the first of them starts. */
  readonly onWorkers?: ((workers: LocalWorkers) => void) | undefined;
}

/** @throws the error of a worker that ended the run; PEER_LOST when too many workers are lost */
export async function supervise(options: SuperviseOptions): Promise<TrainResult["outcome"]> {
  const supervisor = new Supervisor(options);
  try {
    return await supervisor.outcome;
  } finally {
    await supervisor.close();
  }
}

/**
 * A signal to all processes of a run at once is a stop, of which the launcher hears too. Only after
 * this time is it that of one worker.
 */
const ALL_MS = 100;

class Supervisor implements LocalWorkers {
  readonly outcome: Promise<TrainResult["outcome"]>;
  readonly #options: SuperviseOptions;
  readonly #group = `lockstep-${process.pid}-${randomBytes(6).toString("hex")}`;
  readonly #workers = new Map<number, WorkerProcess>();
  readonly #all: WorkerProcess[] = [];
  readonly #beats = new Set<number>();
  readonly #signs = new Map<number, string>();
  readonly #look: NodeJS.Timeout;
  readonly #onStop = () => this.#stop();
  /** Workers that are to leave, and have not been let go. */
  readonly #asked = new Set<number>();
  #state: MembershipState = firstState(performance.now());
  #timer: NodeJS.Timeout | undefined;
  #isOver = false;
  readonly #telling: Telling;
  readonly #tally = { lost: 0, first: 0 };
  readonly #members = new Set<number>();
  #resolve: (outcome: TrainResult["outcome"]) => void = () => undefined;
  #reject: (error: unknown) => void = () => undefined;

  constructor(options: SuperviseOptions) {
    this.#options = options;
    this.#telling = new Telling(options.onEvent);
    this.outcome = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    options.job.catch((error: unknown) => this.#end(() => this.#reject(error)));
    options.signal.addEventListener("abort", this.#onStop, { once: true });
    this.#look = setInterval(() => this.#listen(), BEAT_MS);
    options.onWorkers?.(this);
    this.#take({ kind: "time" });
  }

  list(): LocalWorker[] {
    return this.#state.workers
      .filter(({ status }) => ["starting", "ready", "member"].includes(status))
      .map(({ id, place, status }) => ({ number: id, place, isMember: status === "member" }));
  }

  signal(worker: number, name: NodeJS.Signals): boolean {
    return this.#workers.get(worker)?.signal(name) ?? false;
  }

  reopen(place: string): void {
    const found = this.#options.membership.places.find(({ name }) => name === place);
    const isTaken = this.#state.workers.some((worker) => worker.place === place);
    if (found !== undefined && !isTaken) this.#take({ kind: "join", place, node: found.node });
  }

  get counts(): { readonly lost: number; readonly joined: number } {
    return { lost: this.#tally.lost, joined: this.#members.size - this.#tally.first };
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
    for (const action of actions) this.#act(action);
    clearTimeout(this.#timer);
    if (wakeAt === undefined || this.#isOver) return;
    const wait = Math.max(0, wakeAt - performance.now());
    this.#timer = setTimeout(() => this.#take({ kind: "time" }), Math.min(wait, 2 ** 30));
    this.#letGo();
    this.#stopAlone();
  }

  /** Ends a run that is to stop when no worker is left that could save its state. */
  #stopAlone(): void {
    const { signal } = this.#options;
    const gone = ["lost", "dismissed", "done"];
    if (!signal.aborted || this.#state.workers.some(({ status }) => !gone.includes(status))) return;
    if (this.#state.done.length > 0) return; // it is about to be finished
    const { begun, hasStopped } = this.#telling;
    if (begun === undefined && !hasStopped) return this.#end(() => this.#reject(signal.reason));
    this.#telling.stoppedAt(this.#state.saved);
    this.#end(() => this.#resolve("stopped"));
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
        const hasBegun = this.#telling.begun !== undefined;
        for (const { worker } of members) this.#members.add(worker);
        if (generation === 1) this.#tally.first = members.length;
        for (const [rank, { worker }] of members.entries()) {
          this.#workers
            .get(worker)
            ?.tell({ kind: "form", generation, rank, workers: members.length, hasBegun });
        }
        return;
      }
      case "dismiss":
        return this.#workers.get(action.worker)?.kill();
      case "end":
        return this.#end(() => this.#conclude(action.verdict));
      case "tell":
        if (action.about === "lost") this.#tally.lost += 1;
        this.#telling.membership(action, this.#state.generation, this.#options.signal);
        return;
      case "refuse":
    }
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
      this.#take({ kind: "failed", worker: id, code, text, own: !isConsequence(error) });
    });
    void worker.ended.then(() => {
      if (worker.outcome !== undefined) this.#take({ kind: "done", worker: id });
      const words = worker.lastWords;
      if (worker.crash !== undefined && words !== "" && !this.#isOver) {
        this.#telling.notice(`Worker ${id} said at last:\n    ${words}`);
      }
      const { aborted } = this.#options.signal;
      // It has stopped before it took part.
      if (aborted && worker.outcome === "stopped") {
        this.#take({ kind: "drain", worker: id, why: "the run stops" });
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
      case "drain":
        setTimeout(() => {
          this.#asked.add(id);
          this.#letGo();
        }, ALL_MS);
        return;
      case "lost": {
        const lost = this.#state.generation.members[message.rank]?.worker;
        if (lost === undefined || message.generation !== this.#state.generation.number) return;
        const { generation } = message;
        return this.#take({ kind: "reported", by: id, worker: lost, generation });
      }
      case "event": {
        const { event } = message;
        const { number: generation } = this.#state.generation;
        if (event.type === "checkpoint") this.#take({ kind: "saved", step: event.step });
        if (event.type === "started") this.#take({ kind: "saved", step: event.firstStep });
        if (event.type === "step") {
          this.#take({ kind: "committed", worker: id, generation, step: event.step });
        }
        this.#telling.pass(event);
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
  }

  /**
   * Lets workers go that are asked to leave, once others hold the state; while only others that
   * start could, it waits for those. Without any others the run stops.
   */
  #letGo(): void {
    const { signal, membership } = this.#options;
    if (this.#asked.size === 0 || signal.aborted || this.#isOver) return;
    const answer = answerToLeave(this.#state, this.#asked, membership);
    if (answer === "wait") return;
    const asked = [...this.#asked];
    this.#asked.clear();
    if (answer === "go") {
      for (const worker of asked) this.#take({ kind: "drain", worker, why: "it got SIGTERM" });
      return;
    }
    const text =
      "The run stops, because too few workers would be left without those that got SIGTERM.";
    this.#telling.notice(text);
    this.#stop();
  }

  #stop(): void {
    for (const worker of this.#workers.values()) worker.stop();
    this.#stopAlone();
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
    const { failure, crash } = this.#workers.get(worker ?? -1) ?? {};
    if (failure === undefined || crash !== undefined || worker === undefined) {
      this.#reject(new LockstepError("PEER_LOST", text));
      return;
    }
    const fields = { ...failure.fields, worker };
    if (failure.code !== undefined) {
      this.#reject(new LockstepError(failure.code, failure.text, { fields }));
      return;
    }
    const error = new Error(failure.text.split("\n")[0]);
    error.stack = failure.text;
    this.#reject(error);
  }
}
