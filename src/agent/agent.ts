/**
 * The agent runs once on each machine of a run: it takes jobs from launchers that know its token,
 * one at a time, and starts the workers of this machine for them. A job is data: no code is
 * received, and no user's code is executed here.
 */
import { LockstepError } from "../errors.ts";
import { atMost, availableCores, END_MS } from "../launch/index.ts";
import {
  dialLine,
  type Line,
  LinkFaults,
  listenTcp,
  type PortRange,
  serveLines,
  type TcpListener,
} from "../net/index.ts";
import {
  type AgentReply,
  type AgentRequest,
  envelope,
  errorMessage,
  openRequest,
} from "../protocol/index.ts";
import { AssignedJob } from "./job.ts";

/** What an agent allows, wherever its launcher comes from. */
export interface AgentLimits {
  /** An address of this machine, at which its workers listen. */
  readonly host: string;
  /** The ports that workers listen on; nothing else uses them. Default: any. */
  readonly ports?: PortRange | undefined;
  readonly token: string;
  /**
   * Whether the connections between launcher and agent and between workers are encrypted. Default:
   * false.
   */
  readonly tls?: boolean;
  /** The folder below which the folders of runs lie. */
  readonly folder: string;
  /** The folders below which data must lie, after links are followed. Default: `folder`. */
  readonly dataRoots?: readonly string[];
  /** The most workers of a job. Default: four for each core of this machine. */
  readonly maxWorkers?: number;
  /** The most bytes of the files of a job. Default: 1 GiB. */
  readonly maxJobBytes?: number;
  /** Receives sentences about what happens. */
  readonly onNews?: (text: string) => void;
}

export interface AgentOptions extends AgentLimits {
  /** The port of the agent, at the address of its workers; 0 for any free port. */
  readonly port: number;
}

const MAX_JOB_BYTES = 2 ** 30;

type JobRequest = Extract<AgentRequest, { readonly kind: "job" }>;

/** Rejects with ADDRESS, for example if the port is in use. */
export async function startAgent(options: AgentOptions): Promise<Agent> {
  const { host, port, token, tls = false } = options;
  return new Agent(options, await listenTcp({ host, port, token, tls }));
}

export interface JoinOptions extends Omit<AgentLimits, "host"> {
  /** Where the launcher of a running run listens: host:port. */
  readonly address: string;
  /** Default: the address of this machine from which the launcher is dialed. */
  readonly host?: string | undefined;
  /** How many workers take part. */
  readonly workers: number;
  readonly deadlineMs: number;
  readonly signal: AbortSignal;
}

/**
 * Asks a running launcher to let this machine take part, and serves it like an agent.
 * @param again the agent that has lost the launcher before; its workers may have gone on
 * @throws UNAUTHORIZED, PROTOCOL, ADDRESS, DEADLINE, or the signal's reason
 */
export async function joinRun(options: JoinOptions, again?: Agent): Promise<Agent> {
  const { address, workers, token, tls = false, deadlineMs, signal } = options;
  const line = await dialLine({ address, token, tls, deadlineMs, signal });
  const { host = line.localHost } = options;
  const agent = again ?? new Agent({ ...options, host, maxWorkers: workers });
  agent.greet(line);
  const { left } = agent;
  const has = left && { group: left.group, workers: [...left.workers] };
  line.send(envelope({ kind: "join", host, workers, ...(has && { has }) }));
  return agent;
}

export class Agent {
  readonly #options: AgentLimits;
  readonly #listener: TcpListener | undefined;
  readonly #endServing: (() => void) | undefined;
  readonly #lines = new Set<Line>();
  readonly #faults = new LinkFaults(); // of its lines
  /** The line of the launcher that has the job. */
  #holder: Line | undefined;
  #job: AssignedJob | undefined;
  #isClosed = false;
  /** Why it refused the last job. */
  refusal: Error | undefined;
  #alone: Promise<boolean>;
  #leave: (hasEnded: boolean) => void = () => undefined;

  /** @internal Use `startAgent` or `joinRun`. */
  constructor(options: AgentLimits, listener?: TcpListener) {
    this.#options = options;
    this.#listener = listener;
    this.#endServing = listener && serveLines(listener, (line) => this.greet(line));
    this.#alone = this.#untilAlone();
  }

  /** Resolves when no launcher is connected any more, with whether the last one ended its job. */
  get alone(): Promise<boolean> {
    return this.#alone;
  }

  #untilAlone(): Promise<boolean> {
    return new Promise((resolve) => {
      this.#leave = resolve;
    });
  }

  /** The job whose launcher is gone, and whose workers go on. */
  get left(): Pick<AssignedJob, "group" | "workers" | "awaitMs"> | undefined {
    const job = this.#holder === undefined ? this.#job : undefined;
    return job !== undefined && !job.isEnding && job.awaitMs > 0 ? job : undefined;
  }

  /** The address at which it listens as host:port, with the port that was chosen. */
  get address(): string {
    return this.#listener?.address ?? "";
  }

  /** Takes no more jobs, and asks the workers of the current one to leave it between two steps. */
  async drain(): Promise<void> {
    this.#stopListening();
    const job = this.#job;
    if (job === undefined || job.workers.length === 0) return;
    this.#news("The workers of this machine leave the run.");
    job.drain();
    await job.empty;
  }

  /** Ends the current job and takes no more. */
  async close(): Promise<void> {
    this.#stopListening();
    this.#faults.end();
    for (const line of this.#lines) line.close();
    this.#job?.kill();
    if (this.#job !== undefined) await atMost(END_MS, this.#job.ended);
  }

  #stopListening(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#endServing?.();
    this.#listener?.close();
  }

  /** @internal */
  greet(line: Line): void {
    if (this.#lines.size === 0) this.#alone = this.#untilAlone();
    this.#lines.add(line);
    line.haveFaults(this.#faults);
    const serving = this.#serve(line);
    line.handler = {
      message: (value) => {
        try {
          serving.hear(openRequest(value, "The launcher"));
        } catch (error) {
          serving.refuse(error);
        }
      },
      closed: (why) => {
        this.#lines.delete(line);
        const { job } = serving;
        const hasEnded = job?.isEnding === true;
        if (this.#holder === line) {
          this.#holder = undefined;
          if (job !== undefined && !hasEnded) this.#news(`The launcher is gone: ${why}.`);
          job?.abandon();
        }
        if (this.#lines.size === 0) this.#leave(hasEnded);
      },
    };
  }

  /** What the launcher at the other end of a line can ask for. */
  #serve(line: Line) {
    let job: AssignedJob | undefined;
    const tell = (reply: AgentReply) => line.send(envelope(reply));
    const refuse = (error: unknown) => {
      this.refusal = error instanceof Error ? error : new Error(String(error));
      tell({ kind: "refused", error: errorMessage(error) });
      line.close();
    };
    const begin = (request: JobRequest) => {
      if (!this.#lines.has(line)) return; // the launcher did not wait for an answer
      try {
        job = this.#begin(request, tell, refuse);
        this.#holder = line;
      } catch (error) {
        refuse(error);
      }
    };
    const hear = (request: AgentRequest) => {
      if (request.kind === "take-over") {
        job = this.#takeOver(request, tell);
        if (job !== undefined) this.#holder = line;
      } else if (request.kind !== "job") this.#pass(request, job);
      else {
        this.#makeRoom(request);
        if (this.#job?.isEnding === true) void this.#job.ended.then(() => begin(request));
        else begin(request);
      }
    };
    return {
      hear,
      refuse,
      get job() {
        return job;
      },
    };
  }

  /** Gives the job to another launcher of its run; returns undefined if there is none. */
  #takeOver(
    { group, term = 0 }: Extract<AgentRequest, { readonly kind: "take-over" }>,
    tell: (reply: AgentReply) => void,
  ): AssignedJob | undefined {
    const job = this.#job;
    if (job === undefined || job.isEnding || job.group !== group) {
      tell({ kind: "nothing" });
      return undefined;
    }
    const before = this.#holder;
    if (term < job.term || (before !== undefined && term === job.term)) throw fenced(job);
    this.#holder = undefined;
    before?.close();
    job.takeOver(term, tell);
    this.#news("Another launcher leads the run from now on.");
    return job;
  }

  /**
   * A job that waits for a launcher of its run ends if that brings the job anew. A machine that
   * dials its launcher has no other, so what that one brings counts. Throws FENCED if another
   * launcher of a higher term has, or had, the run.
   */
  #makeRoom({ group, term = 0 }: JobRequest): void {
    const job = this.#job;
    if (job === undefined) return;
    const isSame = job.group === group;
    if (isSame && term < job.term) throw fenced(job);
    if (this.#holder !== undefined || (!isSame && this.#listener !== undefined)) return;
    job.kill();
  }

  #begin(
    request: JobRequest,
    tell: (reply: AgentReply) => void,
    refuse: (error: unknown) => void,
  ): AssignedJob {
    if (this.#job !== undefined) {
      throw new LockstepError("AGENT_BUSY", "This agent has a job already.", {
        hint: "Wait for its end, or end it. If its launcher is gone, start that one again.",
      });
    }
    const { folder, tls = false, dataRoots = [folder] } = this.#options;
    const { maxWorkers = 4 * availableCores(), maxJobBytes = MAX_JOB_BYTES } = this.#options;
    const limits = { ...this.#options, tls, dataRoots, maxWorkers, maxJobBytes };
    const onNews = (text: string) => this.#news(text);
    const job = new AssignedJob({ ...limits, request, tell, refuse, onNews });
    this.#job = job;
    const { name, own } = request;
    onNews(`${name}: ${own} ${own === 1 ? "worker" : "workers"}.`);
    void job.ended.then(() => {
      this.#job = undefined;
      this.#news(`${name}: ended.`);
    });
    return job;
  }

  #pass(
    request: Exclude<AgentRequest, { readonly kind: "job" | "take-over" }>,
    job: AssignedJob | undefined,
  ): void {
    if (job === undefined) throw new LockstepError("PROTOCOL", "There is no job yet.");
    switch (request.kind) {
      case "piece":
        return job.take(request.bytes);
      case "start":
        return job.start(request.worker);
      case "tell":
        return job.tell(request.worker, request.message);
      case "signal":
        return job.signal(request.worker, request.name);
      case "cut-off":
        job.cutOff(request.ms);
        return this.#faults.begin("partition", request.ms);
      case "end":
        return job.kill();
    }
  }

  #news(text: string): void {
    this.#options.onNews?.(text);
  }
}

function fenced({ term }: AssignedJob): LockstepError {
  const text = `Another launcher, of term ${term}, leads the run of this agent.`;
  const hint = "Nothing is lost: the run goes on with that one. End this one.";
  return new LockstepError("FENCED", text, { hint, fields: { term } });
}
