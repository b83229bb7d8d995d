/** Workers that are to leave a run: they are let go once others hold its state, or the run stops. */
import {
  answerToLeave,
  type MembershipOptions,
  type MembershipState,
} from "../membership/index.ts";

export interface LeaversOptions {
  readonly state: () => MembershipState;
  readonly membership: () => MembershipOptions;
  /** Lets a worker leave after a step. */
  readonly leave: (worker: number, why: string) => void;
  readonly stop: () => void;
  readonly notice: (text: string) => void;
}

export class Leavers {
  /** Workers that are to leave, and have not been let go. */
  readonly #asked = new Set<number>();
  readonly #options: LeaversOptions;

  constructor(options: LeaversOptions) {
    this.#options = options;
  }

  /** A worker was asked to leave from outside, so it must. */
  ask(worker: number): void {
    this.#asked.add(worker);
    this.letGo();
  }

  /** A worker is far slower than the others. It stays where they would be too few without it. */
  exclude(worker: number, why: string): void {
    const { state, membership, leave, notice } = this.#options;
    if (membership().stops === true) return;
    if (answerToLeave(state(), new Set([worker]), membership()) === "go") return leave(worker, why);
    notice(
      `Worker ${worker} stays, because without it the run would have too few workers: ${why}.`,
    );
  }

  /** Lets those go that may, or stops the run (`answerToLeave`). */
  letGo(): void {
    const { state, membership, leave, stop, notice } = this.#options;
    if (this.#asked.size === 0 || membership().stops === true) return;
    const answer = answerToLeave(state(), this.#asked, membership());
    if (answer === "wait") return;
    const asked = [...this.#asked];
    this.#asked.clear();
    if (answer === "go") for (const worker of asked) leave(worker, "it got SIGTERM");
    else {
      notice("The run stops, because too few workers would be left.");
      stop();
    }
  }
}
