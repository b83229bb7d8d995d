/**
 * The launcher of a job as its agent sees it. It may vanish, and another may take its place: what
 * the workers say meanwhile is kept for that one, and how each of them stands.
 */
import type { AgentReply, FromWorker, Standing, Told } from "../protocol/index.ts";

/** The most replies that are kept while there is no launcher; then events are given up. */
const MOST_MISSED = 10_000;

export class Launcher {
  /** Of the launcher that has taken the job over; undefined for the one that brought it. */
  term: number | undefined;
  /** Whether there is none now. */
  isGone = false;
  #tell: (reply: AgentReply) => void;
  readonly #standings = new Map<number, Standing>();
  #missed: AgentReply[] = [];

  constructor(tell: (reply: AgentReply) => void) {
    this.#tell = tell;
  }

  tell(reply: AgentReply): void {
    if (reply.kind === "said") this.#said(reply.worker, reply.message);
    if (!this.isGone) {
      if (reply.kind === "ended") this.#standings.delete(reply.worker);
      return this.#tell(reply);
    }
    if (reply.kind === "signs") return;
    this.#missed.push(reply);
    if (this.#missed.length > MOST_MISSED) this.#missed = this.#missed.filter(isNoEvent);
  }

  started(worker: number): void {
    this.#standings.set(worker, { worker, generation: 0, isReady: false, step: 0 });
  }

  /** A worker is told this. */
  told(worker: number, message: Told): void {
    const standing = this.#standings.get(worker);
    if (standing === undefined || message.kind !== "form") return;
    const { generation } = message;
    if (generation <= standing.generation) return; // it was told before
    this.#standings.set(worker, { ...standing, generation, isReady: false });
  }

  #said(worker: number, message: FromWorker): void {
    const standing = this.#standings.get(worker);
    if (standing === undefined || message.kind !== "ready") return;
    const { step, port } = message;
    this.#standings.set(worker, {
      ...standing,
      isReady: true,
      step,
      ...(port === undefined ? {} : { port }),
    });
  }

  /** Another launcher has come: it is told how the workers stand, and then what was missed. */
  replace(term: number, tell: (reply: AgentReply) => void): void {
    [this.term, this.#tell, this.isGone] = [term, tell, false];
    tell({ kind: "taken-over", workers: [...this.#standings.values()] });
    for (const reply of this.#missed.splice(0)) this.tell(reply);
  }
}

function isNoEvent(reply: AgentReply): boolean {
  return reply.kind !== "said" || reply.message.kind !== "event";
}
