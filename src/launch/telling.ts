/**
 * What a run of workers that come and go tells, as one run: each worker that leads tells what it
 * sees, and some of that was told by the one before.
 */
import type { Action, Generation } from "../membership/index.ts";
import type { EventSink, RunEvent, RunStarted } from "../telemetry/index.ts";

type Told = Extract<Action, { readonly kind: "tell" }>;

/** What is told of every run that nothing happens to. */
const PLAIN = ["started", "joined", "spare", "regroup", "ended"];

export class Telling {
  /** How the run began, once it has. */
  begun: RunStarted | undefined;
  /** Whether it was told that the run has stopped. */
  hasStopped = false;
  readonly #onEvent: EventSink;
  #lastStep = 0;

  constructor(onEvent: EventSink) {
    this.#onEvent = onEvent;
  }

  /** Goes on where the telling of an earlier launcher ended. */
  resume(begun: RunStarted | undefined, step: number): void {
    [this.begun, this.#lastStep] = [begun, step];
  }

  notice(text: string): void {
    this.#onEvent({ type: "notice", text });
  }

  /** Tells what was decided about the members of the run, unless that is so in every run. */
  membership(
    { about, worker, text }: Told,
    { number }: Generation,
    { aborted }: AbortSignal,
  ): void {
    const isFirst = number <= 1 && about === "generation";
    const isEnd = aborted && about === "left";
    if (!isFirst && !isEnd && !PLAIN.includes(about)) {
      const whose = worker === undefined ? {} : { worker };
      this.#onEvent({ type: "membership", about, ...whose, text });
    }
  }

  /** Passes on an event of a worker, unless it is told already. */
  pass(event: RunEvent): void {
    switch (event.type) {
      case "started": {
        const isAgain = this.begun !== undefined;
        this.begun ??= event;
        this.#lastStep = event.firstStep;
        if (isAgain) return; // it goes on from its checkpoint, which was told
        break;
      }
      case "step":
        // A new leader may tell of a step that the one before has told of.
        if (event.step <= this.#lastStep) return;
        this.#lastStep = event.step;
        break;
      case "complete":
        if (this.hasStopped) return; // every worker finds it
        this.hasStopped = true;
        break;
      case "failed":
        // It is replaced, or the run ends by another error.
        if (event.code === "PEER_LOST") return;
        break;
      case "stopped":
        // A worker that has not begun knows nothing of the run.
        if (this.hasStopped || (this.begun !== undefined && event.step === 0)) return;
        this.hasStopped = true;
        break;
      default:
    }
    this.#onEvent(event);
  }

  /** The run has stopped while no worker held its state, which is that of this step on disk. */
  stoppedAt(step: number): void {
    if (this.hasStopped || this.begun === undefined) return;
    const { steps, out, firstStep } = this.begun;
    const files = step > firstStep ? ["checkpoints", "metrics.jsonl"] : [];
    const lost = this.#lastStep - step;
    if (lost > 0) {
      const what = lost === 1 ? "one step is" : `${lost} steps are`;
      this.notice(`After step ${step}, ${what} lost with the workers that held their state.`);
    }
    this.#onEvent({ type: "stopped", step, steps, out, files });
  }
}
