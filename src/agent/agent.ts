/**
 * The agent runs once on each machine of a run: it takes jobs from launchers that know its token,
 * one at a time, and starts the workers of this machine for them. A job is data: no code is
 * received, and no user's code is executed here.
 */
import { LockstepError } from "../errors.ts";
import { availableCores } from "../launch/index.ts";
import {
  type Line,
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

export interface AgentOptions {
  /** An address of this machine, at which the agent and its workers listen. */
  readonly host: string;
  /** The port of the agent; 0 for any free port. */
  readonly port: number;
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

const MAX_JOB_BYTES = 2 ** 30;

type JobRequest = Extract<AgentRequest, { readonly kind: "job" }>;

/** Rejects with ADDRESS, for example if the port is in use. */
export async function startAgent(options: AgentOptions): Promise<Agent> {
  const { host, port, token, tls = false } = options;
  return new Agent(options, await listenTcp({ host, port, token, tls }));
}

export class Agent {
  readonly #options: AgentOptions;
  readonly #listener: TcpListener;
  readonly #endServing: () => void;
  readonly #lines = new Set<Line>();
  #job: AssignedJob | undefined;

  /** @internal Use `startAgent`. */
  constructor(options: AgentOptions, listener: TcpListener) {
    this.#options = options;
    this.#listener = listener;
    this.#endServing = serveLines(listener, (line) => this.#greet(line));
  }

  /** The address as host:port, with the port that was chosen. */
  get address(): string {
    return this.#listener.address;
  }

  /** Ends the current job and takes no more. */
  async close(): Promise<void> {
    this.#endServing();
    this.#listener.close();
    for (const line of this.#lines) line.close();
    this.#job?.kill();
    await this.#job?.ended;
  }

  #greet(line: Line): void {
    this.#lines.add(line);
    let job: AssignedJob | undefined;
    const tell = (reply: AgentReply) => line.send(envelope(reply));
    const refuse = (error: unknown) => {
      tell({ kind: "refused", error: errorMessage(error) });
      line.close();
    };
    const begin = (request: JobRequest) => {
      if (!this.#lines.has(line)) return; // the launcher did not wait for an answer
      try {
        job = this.#begin(request, tell, refuse);
      } catch (error) {
        refuse(error);
      }
    };
    line.handler = {
      message: (value) => {
        try {
          const request = openRequest(value, "The launcher");
          if (request.kind !== "job") this.#pass(request, job);
          else if (this.#job?.isEnding === true) void this.#job.ended.then(() => begin(request));
          else begin(request);
        } catch (error) {
          refuse(error);
        }
      },
      closed: (why) => {
        this.#lines.delete(line);
        if (job !== undefined && !job.isOver) this.#news(`The launcher is gone: ${why}.`);
        job?.abandon();
      },
    };
  }

  #begin(
    request: JobRequest,
    tell: (reply: AgentReply) => void,
    refuse: (error: unknown) => void,
  ): AssignedJob {
    if (this.#job !== undefined) {
      throw new LockstepError("AGENT_BUSY", "This agent has a job already.", {
        hint: "Wait for its end, or end it.",
      });
    }
    const { host, ports, token, tls = false, folder } = this.#options;
    const { dataRoots = [folder], maxJobBytes = MAX_JOB_BYTES } = this.#options;
    const { maxWorkers = 4 * availableCores() } = this.#options;
    const places = { host, ports, token, tls, folder, dataRoots };
    const bounds = { maxWorkers, maxJobBytes };
    const job = new AssignedJob({ request, ...places, ...bounds, tell, refuse });
    this.#job = job;
    const { name, firstRank, own, workers } = request;
    const ranks = own === 1 ? `${firstRank}` : `${firstRank} to ${firstRank + own - 1}`;
    this.#news(`${name}: worker ${ranks} of ${workers}.`);
    void job.ended.then(() => {
      this.#job = undefined;
      this.#news(`${name}: ended.`);
    });
    return job;
  }

  #pass(request: Exclude<AgentRequest, JobRequest>, job: AssignedJob | undefined): void {
    if (job === undefined) throw new LockstepError("PROTOCOL", "There is no job yet.");
    switch (request.kind) {
      case "piece":
        return job.take(request.bytes);
      case "addresses":
        return job.addresses(request.addresses);
      case "stop":
        return job.stop(request.alone);
      case "kill":
        return job.kill();
    }
  }

  #news(text: string): void {
    this.#options.onNews?.(text);
  }
}
