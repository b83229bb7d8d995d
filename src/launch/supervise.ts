/**
 * Leads the membership of a run: starts its workers, tells them of their generations, replaces those
 * that are lost, and ends the run. What to do is decided in `membership/`; here it is done.
 */
import {
  type Action,
  decide,
  firstState,
  type MembershipEvent,
  type MembershipOptions,
  type MembershipState,
} from "../membership/index.ts";
import { isConsequence, type Standing } from "../protocol/index.ts";
import type { TrainResult } from "../run/index.ts";
import { isFenced } from "./agents.ts";
import { atMost, END_MS, SAVE_MS } from "./at-most.ts";
import type { Crew } from "./crew.ts";
import { tellFormed, tellRegroup } from "./forming.ts";
import { type OtherMessage, WorkerHandle } from "./handle.ts";
import { endedOf, heardOf, signsOf } from "./hearing.ts";
import { HistoryKeeper } from "./history.ts";
import { Keeper } from "./keeper.ts";
import { Leavers } from "./leavers.ts";
import { ALL_MS, type LocalWorker, type LocalWorkers, listOf } from "./local-workers.ts";
import { doAgain, sinceStored } from "./restore.ts";
import type { StoredRun } from "./stored.ts";
import type { SuperviseOptions } from "./supervise-options.ts";
import { Telling } from "./telling.ts";
import { endOf, leftText } from "./verdict.ts";

/** @throws the error by which a worker has ended; PEER_LOST when too many workers are lost */
export async function supervise(options: SuperviseOptions): Promise<TrainResult["outcome"]> {
  const supervisor = new Supervisor(options);
  try {
    return await supervisor.outcome;
  } finally {
    await supervisor.close();
  }
}

type Outcome = TrainResult["outcome"];

class Supervisor implements LocalWorkers {
  readonly outcome: Promise<Outcome>;
  readonly #options: SuperviseOptions;
  readonly #crew: Crew;
  readonly #workers = new Map<number, WorkerHandle>();
  readonly #all: WorkerHandle[] = [];
  readonly #onStop = () => this.#stop();
  readonly #leavers = new Leavers({
    state: () => this.#state,
    membership: () => this.#membership,
    leave: (worker, why) => this.#leave(worker, why),
    stop: () => this.#stop(),
    notice: (text) => this.#telling.notice(text),
  });
  #state: MembershipState = firstState(performance.now());
  #timer: NodeJS.Timeout | undefined;
  #isOver = false;
  /** Whether another launcher leads the run by now. */
  #isFenced = false;
  readonly #telling: Telling;
  readonly #history = new HistoryKeeper(() => performance.now());
  readonly #keeper: Keeper | undefined;
  #resolve: (outcome: Outcome | Promise<Outcome>) => void = () => undefined;
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
      signs: (alive, stopped) => this.#takeAll(signsOf(alive, stopped)),
      closed: (worker, why) => this.#take({ kind: "closed", worker, why }),
      opened: (places) => this.#open(places),
      notice: (text) => this.#telling.notice(text),
      failed: (error) => this.#giveUp(error),
      nodeOf: (rank) => this.#state.generation.members[rank]?.node,
      hasBegun: () => this.#telling.begun !== undefined,
    });
    options.onWorkers?.(this);
    const { kept } = options;
    this.#keeper =
      kept &&
      new Keeper({
        store: kept.store,
        run: () => {
          const { group, job, listensAt } = kept;
          const { history } = this;
          return { group, job, listensAt, state: this.#state, begun: this.#telling.begun, history };
        },
        notice: (text) => this.#telling.notice(text),
        fenced: (error) => this.#giveUp(error),
      });
    if (kept?.last === undefined) this.#take({ kind: "time" });
    else this.#restore(kept.last);
    // It may have been asked to stop while it took workers over.
    if (options.signal.aborted) this.#stop();
  }

  /** Goes on where another launcher ended, with the workers that have gone on meanwhile. */
  #restore({ state, begun, history }: StoredRun): void {
    this.#state = state;
    this.#telling.resume(begun, state.committed);
    this.#history.resume(history, state.generation);
    const { taken = new Map<number, Standing>() } = this.#crew;
    const living = state.workers.filter(({ id }) => taken.has(id));
    for (const { id } of living) this.#handle(id);
    this.#crew.adopt?.(this.#workers);
    const found = `${living.length} of ${state.workers.length} workers`;
    this.#telling.notice(`The run goes on after step ${state.committed} with ${found}.`);
    doAgain(state, this.#workers, begun !== undefined);
    this.#take(sinceStored(state, taken));
    this.#crew.listen?.();
  }

  list(): LocalWorker[] {
    return listOf(this.#state);
  }

  process(worker: number) {
    return this.#workers.get(worker);
  }

  reopen(place: string): void {
    const { node } = this.#crew.places.find(({ name }) => name === place) ?? {};
    const isTaken = this.#state.workers.some((worker) => worker.place === place);
    if (node !== undefined && !isTaken) this.#take({ kind: "join", place, node });
  }

  get history(): LocalWorkers["history"] {
    return this.#history.history;
  }

  /** Ends all workers that are left, unless another launcher leads them. */
  async close(): Promise<void> {
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#options.signal.removeEventListener("abort", this.#onStop);
    if (this.#isFenced) return this.#crew.leave?.();
    for (const worker of this.#all) worker.kill();
    const ended = Promise.all(this.#all.map((worker) => worker.ended));
    if ((await atMost(END_MS, ended)) === "late") this.#telling.notice(leftText(this.#all));
    this.#crew.close();
    await this.#keeper?.close();
  }

  get #membership(): MembershipOptions {
    const { minWorkers: least, maxWorkers, together = 1, within = together } = this.#options;
    const stops = this.#options.signal.aborted;
    // A run that is to stop waits for no more workers: those that are left save, and end.
    const minWorkers = stops ? 1 : least;
    return { minWorkers, maxWorkers, together, within, stops, places: this.#crew.places };
  }

  /** Workers can start at these places; also where one was asked to leave before. */
  #open(places: readonly string[]): void {
    for (const place of places) {
      if (this.#state.records[place]?.closed === true) this.reopen(place);
    }
    this.#take({ kind: "time" });
  }

  #takeAll(events: readonly MembershipEvent[]): void {
    for (const event of events) this.#take(event);
  }

  #take(event: MembershipEvent): void {
    if (this.#isOver) return;
    const now = performance.now();
    const { state, actions, wakeAt } = decide(now, this.#state, event, this.#membership);
    this.#state = state;
    // It is stored with the state: a launcher that ends before it has acted has counted all of it.
    const isOfHistory = actions.map((action) => this.#history.take(action));
    const act = () => {
      if (this.#isOver) return; // it was waiting for the state to be stored
      for (const action of actions) this.#act(action);
      if (isOfHistory.includes(true)) this.#tellHistory();
    };
    if (this.#keeper === undefined) act();
    else this.#keeper.follow(actions, act);
    clearTimeout(this.#timer);
    if (wakeAt === undefined || this.#isOver) return;
    const wait = Math.max(0, wakeAt - performance.now());
    this.#timer = setTimeout(() => this.#take({ kind: "time" }), Math.min(wait, 2 ** 30));
    this.#leavers.letGo();
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
      case "dismiss":
        return this.#workers.get(action.worker)?.kill();
      case "wake":
        return void this.#workers.get(action.worker)?.signal("SIGCONT");
      case "regroup":
        return tellRegroup(action, this.#workers);
      case "form":
        return tellFormed(action.generation, this.#workers, this.#telling.begun !== undefined);
      case "end":
        return this.#end(() => this.#resolve(endOf(action.verdict, this.#all)));
      case "tell":
        this.#telling.membership(action, this.#state.generation, this.#options.signal);
        return;
      case "refuse":
    }
  }

  #start(id: number, place: string): void {
    const worker = this.#handle(id);
    this.#crew.start(worker, place);
    if (this.#options.signal.aborted) worker.stop();
  }

  #handle(id: number): WorkerHandle {
    const worker = new WorkerHandle(id, (message) => this.#hear(id, message));
    this.#workers.set(id, worker);
    this.#all.push(worker);
    void worker.failed.then((error) => {
      if (worker.crash !== undefined) return;
      const { code = "BUG", text } = error;
      const own = !isConsequence(error);
      // A newcomer that cannot take part, because it has other data, does not end the run.
      const isNew = this.#telling.begun !== undefined && !this.#history.hasSeen(id);
      if (own && !isNew) void this.#fail(worker);
      else this.#take({ kind: "failed", worker: id, code, text, own });
    });
    void worker.ended.then((end) => {
      if (worker.outcome === "complete") this.#end(() => this.#resolve("complete"));
      if (worker.crash !== undefined && end.words !== "" && !this.#isOver) {
        this.#telling.notice(`Worker ${id} said at last:\n    ${end.words}`);
      }
      this.#takeAll(endedOf(worker, end, this.#options.signal.aborted));
    });
    return worker;
  }

  #hear(id: number, message: OtherMessage): void {
    switch (message.kind) {
      case "ready":
      case "lost":
        return this.#takeAll(heardOf(this.#state, id, message));
      case "drain":
        return void setTimeout(() => this.#isOver || this.#leavers.ask(id), ALL_MS);
      case "slow":
        return this.#leavers.exclude(id, message.why);
      case "event": {
        const { event } = message;
        this.#takeAll(heardOf(this.#state, id, message));
        if (this.#history.hear(event)) this.#tellHistory();
        this.#telling.pass(event);
        if (event.type === "checkpoint" || event.type === "started") this.#keeper?.note();
        return;
      }
      case "beat":
    }
  }

  /** The worker leaves after a step. */
  #leave(worker: number, why: string): void {
    this.#workers.get(worker)?.tell({ kind: "leave" });
    this.#take({ kind: "drain", worker, why });
  }

  #tellHistory(): void {
    const { history } = this;
    for (const worker of this.#workers.values()) worker.tell({ kind: "history", history });
  }

  #stop(): void {
    for (const worker of this.#workers.values()) worker.stop();
    this.#take({ kind: "time" });
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

  #giveUp(error: unknown): void {
    this.#isFenced ||= isFenced(error);
    this.#end(() => this.#reject(error));
  }

  #end(conclude: () => void): void {
    if (this.#isOver) return;
    this.#isOver = true;
    conclude();
  }
}
