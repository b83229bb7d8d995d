/**
 * Does faults to the workers of a run, and to its launcher: at random times, or where another run
 * had them. It reaches workers only through the launcher that started them, so it touches no other
 * process.
 */
import type { LocalProcess, LocalWorker, LocalWorkers } from "../launch/index.ts";
import { type Draw, drawFaults, type Fault, type FaultKind } from "./faults.ts";

export interface ChaosOptions {
  readonly seed: number;
  /** The mean time between two faults, in milliseconds. */
  readonly everyMs: number;
  readonly kinds: readonly FaultKind[];
  /** How many faults there are at most. */
  readonly most: number;
  /** Faults to do again, each after its step, in place of random ones. */
  readonly replay?: readonly Fault[] | undefined;
  /** Corrupts the newest checkpoint of the run. Returns false when there is none yet. */
  readonly corrupt: () => boolean;
  /** Kills the launcher, which starts again by itself. Returns false if it cannot be killed now. */
  readonly killLauncher: () => boolean;
  /** Milliseconds since any fixed moment. */
  readonly now: () => number;
  /** Called with each fault as soon as it is done. */
  readonly onFault: (fault: Fault, number: number) => void;
}

/** How long a worker or its links are slow, and the parts of each period in which it stands and runs. */
const SLOW_MS = 5_000;
const STANDS_MS = 90;
const RUNS_MS = 20;
/** After this many times between two faults, the place of a worker that left gets another one. */
const RETURNS_AFTER = 2;
/** When no worker can have the fault, it is tried again. */
const AGAIN_MS = 50;

/** The fractions of its multiples are spread evenly. */
const GOLDEN = 0.6180339887498949;

/** Those that only a member of the present generation can have: weights, links, checkpoints. */
const OF_MEMBERS: readonly FaultKind[] = [
  "preempt",
  "bit-flip",
  "disk-full",
  "slow-disk",
  "partition",
  "slow-link",
];

const SIGNALS = {
  kill: "SIGKILL",
  stop: "SIGSTOP",
  segfault: "SIGSEGV",
  preempt: "SIGTERM",
} as const;

export class Chaos {
  readonly #options: ChaosOptions;
  readonly #draws: Generator<Draw, never>;
  readonly #startedAt: number;
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #replay: Fault[];
  /** Those that end by what was done to them. */
  readonly #over = new Set<number>();
  /** Slow workers that stand still now, and will go on. */
  readonly #stands = new Set<number>();
  #workers: LocalWorkers | undefined;
  #step: number | undefined;
  /** Whether a fault of the replay is due and not possible yet. */
  #isWaiting = false;
  #count = 0;

  constructor(options: ChaosOptions) {
    this.#options = options;
    this.#draws = drawFaults(options.seed, options);
    this.#startedAt = options.now();
    this.#replay = [...(options.replay ?? [])];
  }

  get count(): number {
    return this.#count;
  }

  /** The launcher calls this before the first worker starts. */
  readonly attach = (workers: LocalWorkers): void => {
    this.#workers = workers;
  };

  /** This step of the run is committed. There are no faults before the first. */
  committed(step: number): void {
    const isFirst = this.#step === undefined;
    this.#step = step;
    if (this.#options.replay !== undefined) this.#repeat();
    else if (isFirst) this.#next();
  }

  /** No fault is done after this, and no worker is left that stands still because it was slow. */
  end(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    for (const number of this.#stands) this.#goOn(number);
    this.#workers = undefined;
  }

  #next(): void {
    if (this.#count >= this.#options.most) return;
    const draw = this.#draws.next().value;
    this.#after(draw.afterMs, () => this.#draw(draw));
  }

  #draw(draw: Draw): void {
    const { kind, which, ms } = draw;
    const choose = (able: readonly LocalWorker[]) => able[Math.floor(which * able.length)];
    if (this.#isDone(kind, choose, ms)) this.#next();
    else this.#after(AGAIN_MS, () => this.#draw(draw));
  }

  /** Does what is due by now; a worker that is not there is replaced by another one. */
  #repeat(): void {
    const [fault] = this.#replay;
    if (fault === undefined || fault.step > (this.#step ?? 0) || this.#isWaiting) return;
    if (this.#count >= this.#options.most) return;
    const { kind, worker = 0, ms = 0 } = fault;
    const choose = (able: readonly LocalWorker[]) =>
      able.find(({ number }) => number === worker) ?? able[worker % able.length];
    if (this.#isDone(kind, choose, ms)) {
      this.#replay.shift();
      return this.#repeat();
    }
    this.#isWaiting = true;
    this.#after(AGAIN_MS, () => {
      this.#isWaiting = false;
      this.#repeat();
    });
  }

  /** Does a fault if it is possible now. Returns whether it was. */
  #isDone(
    kind: FaultKind,
    choose: (able: readonly LocalWorker[]) => LocalWorker | undefined,
    ms: number,
  ): boolean {
    if (kind === "coordinator") {
      if (!this.#options.killLauncher()) return false;
      this.#tell({ kind });
      return true;
    }
    const chosen = choose(this.#able(kind));
    return chosen !== undefined && this.#do(kind, chosen, ms);
  }

  /**
   * The last worker that holds the state is not sent away, nor the last machine cut off: the run
   * would stop, or lose its state.
   */
  #able(kind: FaultKind): readonly LocalWorker[] {
    const all = (this.#workers?.list() ?? []).filter(({ number }) => !this.#over.has(number));
    if (!OF_MEMBERS.includes(kind)) return all;
    const members = all.filter(({ isMember }) => isMember);
    if (kind === "preempt" && members.length === 1) return [];
    const nodes = new Set(members.map(({ node }) => node));
    return kind === "partition" && nodes.size === 1 ? [] : members;
  }

  #tell(what: Pick<Fault, "kind" | "worker" | "ms">): void {
    this.#count += 1;
    const seconds = Math.round(this.#options.now() - this.#startedAt) / 1000;
    this.#options.onFault({ step: this.#step ?? 0, ...what, seconds }, this.#count);
  }

  /** Returns whether it could be done. Only what was done is told. */
  #do(kind: Exclude<FaultKind, "coordinator">, worker: LocalWorker, ms: number): boolean {
    const { number } = worker;
    const process = this.#workers?.process(number);
    if (process === undefined || !this.#isHarmed(kind, worker, process, ms)) return false;
    this.#tell({ kind, worker: number, ms: kind === "partition" ? ms : undefined });
    return true;
  }

  #isHarmed(
    kind: Exclude<FaultKind, "coordinator">,
    { number, place }: LocalWorker,
    process: LocalProcess,
    ms: number,
  ): boolean {
    switch (kind) {
      case "corrupt":
        return this.#options.corrupt();
      case "bit-flip":
        // A replay, which has no draws, flips the same bits.
        return process.flipBit(fractionOf(this.#step ?? 0, number));
      case "disk-full":
      case "slow-disk":
        return process.failDisk(kind);
      case "partition":
        return process.failLinks(kind, ms);
      case "slow-link":
        return process.failLinks(kind, SLOW_MS);
      case "slow-worker":
        return this.#slow(number, this.#options.now() + SLOW_MS);
      default:
        if (!process.signal(SIGNALS[kind])) return false;
        this.#over.add(number);
        if (kind === "stop") this.#stands.delete(number);
        if (kind === "preempt") this.#letReturn(place);
        return true;
    }
  }

  /** The place of a worker that was asked to leave gets another one later. */
  #letReturn(place: string): void {
    const ms = RETURNS_AFTER * this.#options.everyMs;
    this.#after(ms, () => this.#workers?.reopen(place));
  }

  /** Returns whether the worker could be stopped. */
  #slow(number: number, endAt: number): boolean {
    if (this.#over.has(number) || this.#options.now() >= endAt) return false;
    if (this.#workers?.process(number)?.signal("SIGSTOP") !== true) return false;
    this.#stands.add(number);
    this.#after(STANDS_MS, () => {
      if (this.#stands.has(number) && this.#goOn(number)) {
        this.#after(RUNS_MS, () => this.#slow(number, endAt));
      }
    });
    return true;
  }

  #goOn(number: number): boolean {
    this.#stands.delete(number);
    return this.#workers?.process(number)?.signal("SIGCONT") === true;
  }

  #after(ms: number, what: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      what();
    }, ms);
    this.#timers.add(timer);
  }
}

/** Which of the bits of a worker's weights is flipped after a step, in [0, 1). */
function fractionOf(step: number, worker: number): number {
  return ((step * 31 + worker + 1) * GOLDEN) % 1;
}
