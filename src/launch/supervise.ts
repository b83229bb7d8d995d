/**
 * Leads the membership of a run: starts its workers, wherever they are, tells them of their
 * generations, replaces those that are lost, and ends the run. What to do is decided in
 * `membership/`, by a pure function; here it is done.
 */
import { LockstepError } from "../errors.ts";
import {
  type Action,
  answerToLeave,
  decide,
  firstState,
  type MembershipEvent,
  type MembershipOptions,
  type MembershipState,
  type Verdict,
} from "../membership/index.ts";
import { isConsequence } from "../protocol/index.ts";
import type { TrainResult } from "../run/index.ts";
import type { EventSink } from "../telemetry/index.ts";
import { atMost, SAVE_MS } from "./at-most.ts";
import type { Crew, CrewEvents } from "./crew.ts";
import { tellFormed } from "./forming.ts";
import { type OtherMessage, WorkerHandle } from "./handle.ts";
import { HistoryKeeper } from "./history.ts";
import { ALL_MS, type LocalWorker, type LocalWorkers, Tally } from "./local-workers.ts";
import { Telling } from "./telling.ts";

export interface SuperviseOptions {
  /** With fewer workers the run waits. */
  readonly minWorkers: number;
  /** Workers beyond this number stand by. */
  readonly maxWorkers: number;
  /** Makes what starts the workers. */
  readonly crew: (events: CrewEvents) => Crew;
  readonly onEvent: EventSink;
  /** Aborting it asks for a clean stop. */
  readonly signal: AbortSignal;
  /** Is given the workers before the first of them starts. */
  readonly onWorkers?: ((workers: LocalWorkers) => void) | undefined;
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

class Supervisor implements LocalWorkers {
  readonly outcome: Promise<TrainResult["outcome"]>;
  readonly #options: SuperviseOptions;
  readonly #crew: Crew;
  readonly #workers = new Map<number, WorkerHandle>();
  readonly #all: WorkerHandle[] = [];
  readonly #onStop = () => this.#stop();
  /** Workers that are to leave, and have not been let go. */
  readonly #asked = new Set<number>();
  #state: MembershipState = firstState(performance.now());
  #timer: NodeJS.Timeout | undefined;
  #isOver = false;
  readonly #telling: Telling;
  readonly #tally = new Tally();
  readonly #history = new HistoryKeeper(() => performance.now());
  #resolve: (outcome: TrainResult["outcome"]) => void = () => undefined;
  #reject: (error: unknown) => void = () => undefined;

  constructor(options: SuperviseOptions) {
    this.#options = options;
    this.#telling = new Telling(options.onEvent);
    this.outcome = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    options.signal.addEventListener("abort", this.#onStop, { once: true });
    this.#crew = options.crew({
      signs: (alive, stopped) => this.#listen(alive, stopped),
      opened: (places) => this.#open(places),
      notice: (text) => this.#telling.notice(text),
      failed: (error) => this.#end(() => this.#reject(error)),
      nodeOf: (rank) => this.#state.generation.members[rank]?.node,
      hasBegun: () => this.#telling.begun !== undefined,
    });
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
    const found = this.#crew.places.find(({ name }) => name === place);
    const isTaken = this.#state.workers.some((worker) => worker.place === place);
    if (found !== undefined && !isTaken) this.#take({ kind: "join", place, node: found.node });
  }

  get counts(): LocalWorkers["counts"] {
    return this.#tally.counts;
  }

  /** Ends all workers that are left. */
  async close(): Promise<void> {
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#options.signal.removeEventListener("abort", this.#onStop);
    for (const worker of this.#all) worker.kill();
    await Promise.all(this.#all.map(({ ended }) => ended));
    this.#crew.close();
  }

  get #membership(): MembershipOptions {
    const { minWorkers, maxWorkers } = this.#options;
    return { minWorkers, maxWorkers, places: this.#crew.places };
  }

  /** Workers can start at these places; also where one was asked to leave before. */
  #open(places: readonly string[]): void {
    for (const place of places) {
      if (this.#state.records[place]?.closed === true) this.reopen(place);
    }
    this.#take({ kind: "time" });
  }

  #take(event: MembershipEvent): void {
    if (this.#isOver) return;
    const now = performance.now();
    const { state, actions, wakeAt } = decide(now, this.#state, event, this.#membership);
    this.#state = state;
    for (const action of actions) {
      this.#act(action);
      if (this.#history.take(action)) this.#tellHistory();
    }
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
        return this.#start(action.worker, action.place);
      case "kill":
        return this.#workers.get(action.worker)?.kill();
      case "regroup": {
        const { generation, when } = action;
        for (const id of action.workers) {
          this.#workers.get(id)?.tell({ kind: "regroup", generation, when });
        }
        return;
      }
      case "form":
        this.#tally.formed(action.generation);
        return tellFormed(action.generation, this.#workers, this.#telling.begun !== undefined);
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

  #start(id: number, place: string): void {
    const worker = new WorkerHandle(id, (message) => this.#hear(id, message));
    this.#workers.set(id, worker);
    this.#all.push(worker);
    this.#crew.start(worker, place);
    if (this.#options.signal.aborted) worker.stop();
    void worker.failed.then((error) => {
      if (worker.crash !== undefined) return;
      const { code = "BUG", text } = error;
      if (isConsequence(error)) {
        this.#take({ kind: "failed", worker: id, code, text, own: false });
      } else void this.#fail(worker);
    });
    void worker.ended.then(({ status, signal, words, refused }) => {
      if (worker.outcome !== undefined) this.#take({ kind: "done", worker: id });
      if (worker.crash !== undefined && words !== "" && !this.#isOver) {
        this.#telling.notice(`Worker ${id} said at last:\n    ${words}`);
      }
      const { aborted } = this.#options.signal;
      // It has stopped before it took part.
      if (aborted && worker.outcome === "stopped") {
        this.#take({ kind: "drain", worker: id, why: "the run stops" });
      }
      if (refused === undefined) this.#take({ kind: "ended", worker: id, status, signal });
      else {
        this.#take({ kind: "closed", worker: id, why: refused });
        this.#take({ kind: "refused", worker: id });
      }
    });
  }

  #hear(id: number, message: OtherMessage): void {
    switch (message.kind) {
      case "ready": {
        const { kind, generation, step } = message;
        return this.#take({ kind, generation, step, worker: id });
      }
      case "drain":
        return void setTimeout(() => this.#letGo(id), ALL_MS);
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
          if (this.#history.committed()) this.#tellHistory();
        }
        if (event.type === "repeated") {
          this.#history.repeated();
          this.#tellHistory();
        }
        this.#telling.pass(event);
        return;
      }
      case "beat":
    }
  }

  #listen(alive: readonly number[], stopped: readonly number[]): void {
    const { number: generation } = this.#state.generation;
    const beats = alive.map((worker) => ({ worker, generation }));
    if (beats.length > 0) this.#take({ kind: "beats", beats });
    for (const worker of stopped) this.#take({ kind: "stopped", worker });
  }

  /** Lets workers go that are asked to leave, or stops the run (`answerToLeave`). */
  #letGo(asking?: number): void {
    if (asking !== undefined) this.#asked.add(asking);
    const { signal } = this.#options;
    if (this.#asked.size === 0 || signal.aborted || this.#isOver) return;
    const answer = answerToLeave(this.#state, this.#asked, this.#membership);
    if (answer === "wait") return;
    const asked = [...this.#asked];
    this.#asked.clear();
    if (answer === "go") {
      for (const worker of asked) this.#take({ kind: "drain", worker, why: "it got SIGTERM" });
      return;
    }
    this.#telling.notice("The run stops, because too few workers would be left.");
    this.#stop();
  }

  #tellHistory(): void {
    const { history } = this.#history;
    for (const worker of this.#workers.values()) worker.tell({ kind: "history", history });
  }

  #stop(): void {
    for (const worker of this.#workers.values()) worker.stop();
    this.#stopAlone();
  }

  /**
   * A worker has ended by an error of its own, which would only come again. The leader saves; before
   * the first generation, the worker that has made the run's folder removes it.
   */
  async #fail(failed: WorkerHandle): Promise<void> {
    if (this.#isOver) return;
    this.#isOver = true;
    for (const worker of this.#workers.values()) worker.stop(true);
    const leader = this.#workers.get(this.#state.generation.members[0]?.worker ?? -1);
    const awaited = leader === undefined ? this.#all : [leader];
    await atMost(SAVE_MS, Promise.all(awaited.map(({ ended }) => ended)));
    this.#reject(failed.error);
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
