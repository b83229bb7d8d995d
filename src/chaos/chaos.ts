/**
 * Does faults to the workers of a run: at random times, or where another run had them. It reaches
 * workers only through the launcher that started them, so it touches no other process.
 */
import type { LocalWorker, LocalWorkers } from "../launch/index.ts";
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
  /** Milliseconds since any fixed moment. */
  readonly now: () => number;
  /** Called with each fault as soon as it is done. */
  readonly onFault: (fault: Fault, number: number) => void;
}

/** How long a worker is slow, and the parts of each period in which it stands and runs. */
const SLOW_MS = 5_000;
const STANDS_MS = 90;
const RUNS_MS = 20;
/** After this many times between two faults, the place of a worker that left gets another one. */
const RETURNS_AFTER = 2;
/** When no worker can have the fault, it is tried again. */
const AGAIN_MS = 50;

/** The fractions of its multiples are spread evenly. */
const GOLDEN = 0.6180339887498949;

/** Those that only a worker of the present generation can have. */
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
  /** Those that end by what was done to them. A slow worker among them must not be continued. */
  readonly #over = new Set<number>();
  #workers: LocalWorkers | undefined;
  #step: number | undefined;
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
    if (this.#options.replay !== undefined) this.#repeat(step);
    else if (isFirst) this.#next();
  }

  /** No fault is done after this. */
  end(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    this.#workers = undefined;
  }

  #next(): void {
    if (this.#count >= this.#options.most) return;
    const { afterMs, kind, which } = this.#draws.next().value;
    this.#after(afterMs, () => this.#draw(kind, which));
  }

  #draw(kind: FaultKind, which: number): void {
    const able = this.#able(kind);
    const chosen = able[Math.floor(which * able.length)];
    if (chosen === undefined || !this.#do(kind, chosen)) {
      return this.#after(AGAIN_MS, () => this.#draw(kind, which));
    }
    this.#next();
  }

  /** Does what is due by now; a worker that is not there is replaced by another one. */
  #repeat(step: number): void {
    const [fault] = this.#replay;
    if (fault === undefined || fault.step > step || this.#count >= this.#options.most) return;
    const able = this.#able(fault.kind);
    const chosen =
      able.find(({ number }) => number === fault.worker) ?? able[fault.worker % able.length];
    if (chosen === undefined || !this.#do(fault.kind, chosen)) {
      return this.#after(AGAIN_MS, () => this.#repeat(step));
    }
    this.#replay.shift();
    this.#repeat(step);
  }

  /** The last worker that holds the state is not sent away: the run would stop. */
  #able(kind: FaultKind): readonly LocalWorker[] {
    const all = (this.#workers?.list() ?? []).filter(({ number }) => !this.#over.has(number));
    if (!OF_MEMBERS.includes(kind)) return all;
    const members = all.filter(({ isMember }) => isMember);
    // Others have no weights, links or checkpoints.
    return kind !== "preempt" || members.length > 1 ? members : [];
  }

  /** Returns whether it could be done. */
  #do(kind: FaultKind, { number, place }: LocalWorker): boolean {
    if (kind === "corrupt" && !this.#options.corrupt()) return false;
    this.#count += 1;
    const seconds = Math.round(this.#options.now() - this.#startedAt) / 1000;
    const { onFault } = this.#options;
    onFault({ step: this.#step ?? 0, worker: number, kind, seconds }, this.#count);
    // A replay, which has no draws, flips the same bits.
    if (kind === "bit-flip") {
      this.#workers?.process(number)?.flipBit(fractionOf(this.#step ?? 0, number));
      return true;
    }
    if (kind === "disk-full" || kind === "slow-disk")
      this.#workers?.process(number)?.failDisk(kind);
    else if (kind === "partition" || kind === "slow-link") {
      this.#workers?.process(number)?.failLinks(kind);
    } else if (kind === "slow-worker") this.#slow(number, this.#options.now() + SLOW_MS);
    else if (kind !== "corrupt") this.#signal(kind, number, place);
    return true;
  }

  #signal(kind: keyof typeof SIGNALS, number: number, place: string): void {
    this.#over.add(number);
    this.#workers?.process(number)?.signal(SIGNALS[kind]);
    if (kind !== "preempt") return;
    const ms = RETURNS_AFTER * this.#options.everyMs;
    this.#after(ms, () => this.#workers?.reopen(place));
  }

  #slow(number: number, endAt: number): void {
    if (this.#over.has(number) || this.#options.now() >= endAt) return;
    if (this.#workers?.process(number)?.signal("SIGSTOP") !== true) return;
    this.#after(STANDS_MS, () => {
      if (this.#over.has(number)) return;
      if (this.#workers?.process(number)?.signal("SIGCONT") !== true) return;
      this.#after(RUNS_MS, () => this.#slow(number, endAt));
    });
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
