/**
 * The agents of a run: those that the launcher dials, again whenever one is lost, and those that
 * dial it to join. Each connected agent has a place for each of its workers.
 */
import type { LockstepError } from "../errors.ts";
import type { JobFiles } from "../job/index.ts";
import type { Place } from "../membership/index.ts";
import {
  dialLine,
  type Line,
  listenTcp,
  parseAddress,
  serveLines,
  type TcpListener,
} from "../net/index.ts";
import { type AgentJob, type AgentOffer, openOffer, type Standing } from "../protocol/index.ts";
import {
  all,
  freeName,
  isFenced,
  oneOf,
  RETAKE_MS,
  redialed,
  takenFrom,
  within,
} from "./agents.ts";
import type { Crew, CrewEvents } from "./crew.ts";
import type { WorkerHandle } from "./handle.ts";
import { OwnClock } from "./own-clock.ts";
import { RemoteAgent, refused } from "./remote.ts";
import { Returning } from "./returning.ts";
import { placesOf, Seats } from "./seats.ts";

export interface HostsCrewOptions {
  /** As host:port. */
  readonly hosts: readonly string[];
  readonly secrets: { readonly token: string; readonly tls: boolean };
  /** Where machines that join are waited for: host:port. */
  readonly listen: string | undefined;
  /** What each agent is sent. */
  readonly offer: { readonly message: AgentJob; readonly files: JobFiles };
  /** The nodes of workers that an earlier launcher has left, by number; they are taken over. */
  readonly left: ReadonlyMap<number, string> | undefined;
  readonly deadlineMs: number;
  readonly signal: AbortSignal;
  readonly onListening: ((address: string) => void) | undefined;
}

export class HostsCrew implements Crew {
  readonly #options: HostsCrewOptions;
  readonly #clock = new OwnClock();
  readonly #seats = new Seats();
  /** All that are connected, also those that have not taken the job yet. */
  #agents: readonly RemoteAgent[] = [];
  readonly #over = new AbortController();
  /** The names of machines that join or have joined. */
  readonly #guests = new Set<string>();
  /** While an earlier launcher's workers are taken over. */
  readonly #returning: Returning | undefined;
  #listener: TcpListener | undefined;
  #events: CrewEvents | undefined;

  private constructor(options: HostsCrewOptions) {
    this.#options = options;
    const { left, hosts, offer } = options;
    this.#returning = left && new Returning(offer.message.group, left, hosts);
  }

  /** @throws what keeps an agent of `hosts` from taking the job, or the launcher from listening */
  static async open(options: HostsCrewOptions): Promise<HostsCrew> {
    const crew = new HostsCrew(options);
    try {
      await crew.#begin();
    } catch (error) {
      crew.close();
      throw error;
    }
    return crew;
  }

  /** @param events must be taken in the same turn in which `open` resolved */
  attach(events: CrewEvents): this {
    this.#events = events;
    return this;
  }

  /** Where it listens for machines that join, as host:port. */
  get listensAt(): string | undefined {
    return this.#listener?.address;
  }

  get places(): readonly Place[] {
    return this.#seats.places;
  }

  get taken(): ReadonlyMap<number, Standing> {
    return this.#seats.taken;
  }

  adopt(workers: ReadonlyMap<number, WorkerHandle>): void {
    this.#seats.adopt(workers);
  }

  listen(): void {
    for (const agent of this.#seats.agents) agent.listen();
  }

  leave(): void {
    for (const agent of this.#agents) agent.leave();
    this.close();
  }

  start(worker: WorkerHandle, place: string): void {
    const agent = this.#seats.at(place);
    if (agent === undefined) worker.close(refused("its agent is gone"));
    else agent.start(worker);
  }

  close(): void {
    this.#over.abort();
    this.#clock.close();
    this.#listener?.close();
    for (const agent of this.#agents) agent.end();
  }

  async #begin(): Promise<void> {
    const { hosts, listen, secrets, deadlineMs, signal, onListening } = this.#options;
    if (listen !== undefined) {
      this.#listener = await listenTcp({ ...parseAddress(listen), ...secrets });
      serveLines(this.#listener, (line) => this.#greet(line));
      onListening?.(this.#listener.address);
    }
    const agents: RemoteAgent[] = [];
    const dialed = async (name: string, index: number) => {
      const line = await dialLine({ address: name, ...secrets, deadlineMs, signal });
      agents[index] = this.#agent(name, line);
    };
    try {
      if (this.#returning !== undefined) return await this.#takeOver(this.#returning);
      await all(hosts.map(dialed));
      const { message, files } = this.#options.offer;
      for (const agent of agents) agent.offer(message, files);
      await all(agents.map((agent) => within(deadlineMs, agent)));
    } catch (error) {
      for (const agent of agents) agent?.end();
      throw error;
    }
    // What one has sent while the others took the job may be a fault.
    for (const { fault } of agents) if (fault !== undefined) throw fault;
    const { own } = this.#options.offer.message;
    for (const agent of agents) if (!agent.isOver) this.#seats.set(agent, own, []);
    this.#redialOthers();
  }

  #redialOthers(): void {
    for (const name of this.#options.hosts) if (!this.#seats.has(name)) void this.#redial(name);
  }

  /**
   * Takes the workers of an earlier launcher over from all agents that answer, and from machines that
   * had joined and come back; the other agents are dialed again later.
   * @throws what went wrong, if no agent answers
   */
  async #takeOver(returning: Returning): Promise<void> {
    const { hosts, secrets, deadlineMs, signal, offer } = this.#options;
    const takeOne = async (name: string) => {
      const line = await dialLine({ address: name, ...secrets, deadlineMs, signal });
      const agent = this.#agent(name, line);
      return { agent, taken: await takenFrom(agent, offer, deadlineMs) };
    };
    const [ends] = await Promise.all([
      Promise.allSettled(hosts.map(takeOne)),
      this.#listener === undefined ? undefined : returning.end(),
    ]);
    const failures: unknown[] = [];
    for (const end of ends) {
      if (end.status === "rejected") failures.push(end.reason);
      else if (end.value.agent.lost !== undefined) failures.push(end.value.agent.lost);
      else this.#seats.set(end.value.agent, offer.message.own, end.value.taken);
    }
    const fenced = failures.find(isFenced);
    if (fenced !== undefined || this.#seats.agents.length === 0) {
      this.leave();
      throw fenced ?? oneOf(failures);
    }
    this.#redialOthers();
  }

  #agent(name: string, line: Line, host = parseAddress(name).host, isGuest = false): RemoteAgent {
    const agent: RemoteAgent = new RemoteAgent({
      name,
      host,
      line,
      onSigns: (alive, stopped) => this.#events?.signs(alive, stopped),
      onUnreachable: (worker, why) => this.#events?.closed(worker, why),
      onClosed: (why, fault) => this.#lost(agent, why, fault, isGuest),
      nodeOf: (rank) => this.#events?.nodeOf(rank),
    });
    this.#agents = [...this.#agents.filter(({ isOver }) => !isOver), agent];
    return agent;
  }

  #lost(agent: RemoteAgent, why: string, fault: LockstepError | undefined, isGuest: boolean) {
    const { name } = agent;
    if (!this.#seats.delete(agent)) return; // it had not taken the job
    this.#guests.delete(name);
    if (this.#over.signal.aborted) return;
    const events = this.#events;
    if (fault !== undefined && !isGuest && events?.hasBegun() !== true) {
      return events?.failed(fault);
    }
    const { stoodStillMs } = this.#clock;
    const own =
      stoodStillMs > 0
        ? ` This command itself was stopped, for ${Math.round(stoodStillMs / 1000)} s.`
        : "";
    const then = isGuest ? "It may join again." : "It is dialed again.";
    events?.notice(`The agent on ${name} is lost: ${fault?.message ?? `${why}.`}${own} ${then}`);
    if (!isGuest) void this.#redial(name);
  }

  async #redial(name: string): Promise<void> {
    const { secrets, offer } = this.#options;
    const { signal } = this.#over;
    const agentOn = (line: Line) => this.#agent(name, line);
    const notice = (text: string) => this.#events?.notice(text);
    try {
      const agent = await redialed(name, { secrets, offer, signal, agentOn, notice });
      if (agent !== undefined) this.#open(agent, offer.message.own);
    } catch (error) {
      this.#events?.failed(error);
    }
  }

  /** Workers can start on this agent from now on. */
  #open(agent: RemoteAgent, own: number): void {
    if (this.#over.signal.aborted) return agent.end();
    this.#seats.set(agent, own, []);
    this.#events?.opened(placesOf(agent.name, own));
  }

  /** A machine dials to take part: it says who it is, and gets the job. */
  #greet(line: Line): void {
    const { signal } = this.#over;
    const close = () => line.close();
    const settled = () => signal.removeEventListener("abort", close);
    signal.addEventListener("abort", close);
    line.handler = {
      message: (value) => {
        settled();
        try {
          const offer = openOffer(value, "A machine that joins");
          const name = this.#returning?.nameOf(offer);
          if (name === undefined || this.#guests.has(name))
            void this.#admit(line, offer.host, offer.workers);
          else void this.#takeBack(line, name, offer);
        } catch (error) {
          this.#events?.notice((error as Error).message);
          line.close();
        }
      },
      closed: settled,
    };
  }

  /** A machine that had joined comes back, and its workers have gone on. */
  async #takeBack(line: Line, name: string, { host, workers }: AgentOffer): Promise<void> {
    const { offer, deadlineMs } = this.#options;
    this.#guests.add(name);
    const agent = this.#agent(name, line, host, true);
    try {
      const message = { ...offer.message, own: workers };
      const taken = await takenFrom(agent, { ...offer, message }, deadlineMs);
      // If it comes too late it is gone for now, and joins anew.
      if (!agent.isOver && this.#returning?.hasCome(name) === true) {
        return this.#seats.set(agent, workers, taken);
      }
    } catch (error) {
      if (!this.#over.signal.aborted) this.#events?.notice((error as Error).message);
    }
    this.#guests.delete(name);
    agent.leave();
  }

  async #admit(line: Line, host: string, own: number): Promise<void> {
    const { message, files } = this.#options.offer;
    const name = freeName(host, this.#guests);
    this.#guests.add(name);
    const agent = this.#agent(name, line, host, true);
    try {
      agent.offer({ ...message, own }, files);
      await within(RETAKE_MS, agent);
      if (agent.lost === undefined) return this.#open(agent, own);
    } catch (error) {
      if (!this.#over.signal.aborted) this.#events?.notice((error as Error).message);
    }
    this.#guests.delete(name);
    agent.end();
  }
}
