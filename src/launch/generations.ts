/**
 * The generations of a worker whose launcher leads the run's membership: it is told of each, meets
 * the other members, and says when it has left.
 */
import { Group, measureCosts } from "../collectives/index.ts";
import type { Device } from "../engine/index.ts";
import { LockstepError } from "../errors.ts";
import { type LinkFault, parseAddress, type TcpListener } from "../net/index.ts";
import type { Formed, FromWorker, Short } from "../protocol/index.ts";
import { isOfGroup, isTooFew, type Members } from "../run/index.ts";
import { type History, NO_HISTORY } from "../telemetry/index.ts";
import { noRoomBeside, type Ranks } from "../train/index.ts";
import { countWaits, type WaitCounts } from "../transport/index.ts";
import { meet } from "./meet.ts";

export interface GenerationsOptions {
  readonly engine: Device;
  /** What the names of all groups of the run begin with. */
  readonly group: string;
  /** How long a wait for another member may take that lives. */
  readonly deadlineMs: number;
  /** Where waits for other members are counted. */
  readonly waits: WaitCounts;
  readonly tell: (message: FromWorker) => void;
  /** Where workers of other machines connect. Undefined in a run of one machine. */
  readonly listener: TcpListener | undefined;
}

export class Generations implements Members {
  readonly #options: GenerationsOptions;
  /** The present generation; 0 before the first. */
  #number = 0;
  /** The number of its members. */
  #size = 0;
  #isWanted = false;
  #isLeaving = false;
  #hasBegun = false;
  /** Ends the present generation on this worker. */
  #leave = new AbortController();
  #formed: Formed | undefined;
  #ended: LockstepError | undefined;
  #history: History = NO_HISTORY;
  #told: () => void = () => undefined;
  readonly leaving: Promise<void>;
  #leaves: () => void = () => undefined;

  constructor(options: GenerationsOptions) {
    this.#options = options;
    this.leaving = new Promise((resolve) => {
      this.#leaves = resolve;
    });
  }

  /**
   * Takes what the launcher says of a generation. The worker is in it from now on, because it may be
   * asked to leave it in the same turn, before it has begun to meet the others.
   */
  form(formed: Formed): void {
    if (formed.generation <= this.#number) return;
    this.#formed = formed;
    this.#number = formed.generation;
    this.#size = formed.members.length;
    this.#hasBegun = formed.hasBegun;
    this.#isWanted = false;
    this.#leave = new AbortController();
    this.#told();
  }

  /** There is no next generation: another worker has ended the run. */
  end(reason: LockstepError): void {
    this.#ended = reason;
    this.#leave.abort(new LockstepError("ABORTED", reason.message));
    this.#told();
  }

  /** The links to workers of other machines have a fault for this time. */
  failLinks(fault: LinkFault, ms: number): void {
    this.#options.listener?.faults.begin(fault, ms);
  }

  /** Leaves a generation, at once or when it is asked after a step. */
  regroup(generation: number, when: "after-step" | "now"): void {
    if (generation !== this.#number) return;
    this.#isWanted = true;
    if (when === "now") {
      this.#leave.abort(new LockstepError("ABORTED", "The members of this run meet anew."));
    }
  }

  /** This worker takes part in no later generation. */
  leave(): void {
    this.#isLeaving = true;
    this.#leaves();
  }

  isLeaving(): boolean {
    return this.#isLeaving;
  }

  exclude(why: string): void {
    this.#options.tell({ kind: "slow", why });
  }

  history(): History {
    return this.#history;
  }

  /** Takes what the launcher knows of the workers of the run. */
  tell(history: History): void {
    this.#history = history;
  }

  isWanted(): boolean {
    return this.#isWanted;
  }

  hasBegun(): boolean {
    return this.#hasBegun;
  }

  async next(step: number, lost?: unknown): Promise<Ranks> {
    this.#tellLost(lost);
    for (let short = this.#short(lost); ; short = undefined) {
      const ready = { kind: "ready", generation: this.#number, step, short } as const;
      this.#options.tell({ ...ready, ...this.#ownPort });
      const formed = await this.#nextFormed();
      try {
        return await this.#meet(formed);
      } catch (error) {
        if (!this.#isOfMeeting(error)) throw this.#hasBegun ? noRoomBeside(error) : error;
        this.#tellLost(error);
      }
    }
  }

  /** Whether the generation ended because its workers were too few. */
  #short(lost: unknown): Short | undefined {
    if (!isTooFew(lost)) return undefined;
    const [why = ""] = lost.message.split("\n");
    return { workers: this.#size, why };
  }

  get #ownPort(): { readonly port?: number } {
    const { listener } = this.#options;
    return listener === undefined ? {} : { port: parseAddress(listener.address).port };
  }

  /**
   * Whether the members can meet anew after an error. One that cannot be reached is lost; before
   * the first step it never could be, which is a fault of the network that people must mend.
   */
  #isOfMeeting(error: unknown): error is LockstepError {
    const isUnreachable = error instanceof LockstepError && error.code === "ADDRESS";
    return isOfGroup(error) || (isUnreachable && this.#hasBegun);
  }

  #tellLost(error: unknown): void {
    if (!(error instanceof LockstepError)) return;
    const { peer } = error.fields;
    if (typeof peer !== "number" || error.code === "ABORTED") return;
    this.#options.tell({ kind: "lost", generation: this.#number, rank: peer });
  }

  async #nextFormed(): Promise<Formed> {
    for (;;) {
      if (this.#ended !== undefined) throw this.#ended;
      const formed = this.#formed;
      this.#formed = undefined;
      if (formed !== undefined) return formed;
      await new Promise<void>((resolve) => {
        this.#told = resolve;
      });
    }
  }

  async #meet(formed: Formed): Promise<Ranks> {
    const { engine, group, deadlineMs, listener } = this.#options;
    const { signal } = this.#leave;
    const transport = countWaits(
      await meet(formed, { group, listener, deadlineMs, signal }),
      this.#options.waits,
    );
    const met = new Group({ engine, transport });
    try {
      // Between nodes, how gradients are cut into buckets follows from what a message costs.
      met.costs = await measureCosts(transport);
    } catch (error) {
      await met.close();
      throw error;
    }
    return { group: met };
  }
}
