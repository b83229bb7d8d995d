/**
 * A run of thousands of simulated workers, each with an agent of its own, on a simulated network and
 * clock: they join, beat, meet, commit steps, die at random and come back. The coordinator is real:
 * it reads and checks every message as it comes from a connection, decides, and writes its answers.
 * Its time is measured apart from that of the simulation.
 */
import assert from "node:assert/strict";
import {
  type Action,
  BEAT_MS,
  decide,
  firstState,
  type Generation,
  type MembershipEvent,
  type MembershipOptions,
} from "../../src/membership/index.ts";
import {
  type AgentReply,
  type AgentRequest,
  envelope,
  type FromWorker,
  openReply,
  type Told,
} from "../../src/protocol/index.ts";
import { randomSource } from "./random.ts";

export interface CrowdOptions {
  readonly agents: number;
  readonly seed: number;
  readonly stepMs: number;
  /** The mean times until the next worker dies, and until a dead one's agent is back. */
  readonly deathMs: number;
  readonly returnMs: number;
}

interface Agent {
  readonly index: number;
  worker: number | undefined;
  /** Whether its process runs; and whether it stands still for good. */
  lives: boolean;
  hangs: boolean;
  generation: number;
  isIn: boolean;
  leavesAfterStep: boolean;
  step: number;
}

/** Beats are spread over this many moments of each period. */
const MOMENTS = 25;

export class Crowd {
  now = 0;
  /** What decisions took, in ms each; and all that the coordinator did. */
  readonly decisions: number[] = [];
  busyMs = 0;
  messages = 0;
  bytes = 0;
  steps = 0;
  deaths = 0;
  state = firstState(0);
  readonly agents: readonly Agent[];
  readonly #options: CrowdOptions;
  readonly #membership: MembershipOptions;
  readonly #random: () => number;
  readonly #queue = new Queue();
  /** By number of worker. */
  readonly #byWorker = new Map<number, Agent>();
  readonly #signs = new Set<number>();
  /** What has come and is not decided on yet. */
  readonly #heard: MembershipEvent[] = [];
  #wakeAt = 0;
  #isCalm = false;
  #formed: Generation | undefined;
  /** How many members are in the generation that was formed last. */
  #present = 0;

  constructor(options: CrowdOptions) {
    this.#options = options;
    this.#random = randomSource(options.seed);
    const { agents } = options;
    this.#membership = { minWorkers: Math.ceil(agents * 0.9), maxWorkers: agents, places: [] };
    this.agents = Array.from({ length: agents }, (_, index) => {
      const agent: Agent = {
        index,
        worker: undefined,
        lives: false,
        hangs: false,
        generation: 0,
        isIn: false,
        leavesAfterStep: false,
        step: 0,
      };
      this.#after(this.#random() * 10_000, () => this.#join(agent));
      return agent;
    });
    this.#take({ kind: "time" });
    for (let moment = 0; moment < MOMENTS; moment++) {
      this.#every(BEAT_MS, (moment * BEAT_MS) / MOMENTS, () => this.#beat(moment));
    }
    this.#every(BEAT_MS, 0, () => this.#takeSigns());
    this.#every(options.stepMs, 0, () => this.#commit());
    this.#after(15_000, () => this.#dieAtRandom());
  }

  pass(ms: number): void {
    const end = this.now + ms;
    for (;;) {
      const next = this.#queue.first();
      const at = Math.min(next?.at ?? end, this.#wakeAt);
      if (at > end) break;
      this.now = Math.max(this.now, at);
      if (next !== undefined && next.at <= at) this.#queue.take()?.run();
      else this.#take({ kind: "time" });
    }
    this.now = end;
  }

  /** From now on nobody dies. */
  calm(): void {
    this.#isCalm = true;
  }

  living(): Agent[] {
    return this.agents.filter(({ lives, hangs }) => lives && !hangs);
  }

  #after(ms: number, run: () => void): void {
    this.#queue.add({ at: this.now + ms, run });
  }

  #every(ms: number, first: number, run: () => void): void {
    this.#after(first, () => {
      run();
      this.#every(ms, ms, run);
    });
  }

  // The coordinator.

  #coordinate(act: () => void): void {
    const start = performance.now();
    act();
    this.busyMs += performance.now() - start;
  }

  /** What came within a millisecond is decided on at once. */
  #hear(event: MembershipEvent): void {
    if (this.#heard.length === 0) {
      this.#after(1, () => {
        const [first, ...others] = this.#heard.splice(0) as [MembershipEvent];
        const isOne = others.length === 0;
        this.#take(isOne ? first : { kind: "several", events: [first, ...others] });
      });
    }
    this.#heard.push(event);
  }

  #take(event: MembershipEvent): void {
    this.#coordinate(() => this.#decide(event));
  }

  #decide(event: MembershipEvent): void {
    const start = performance.now();
    const decision = decide(this.now, this.state, event, this.#membership);
    this.decisions.push(performance.now() - start);
    this.state = decision.state;
    this.#wakeAt = decision.wakeAt ?? Number.POSITIVE_INFINITY;
    for (const action of decision.actions) this.#carryOut(action);
  }

  /** A message of an agent has come, as the text that a connection carries. */
  #receive(text: string, agent: number): void {
    this.#coordinate(() => {
      const reply = openReply(JSON.parse(text), `agent ${agent}`);
      switch (reply.kind) {
        case "signs":
          for (const { worker } of reply.alive) this.#signs.add(worker);
          return;
        case "ended": {
          const { kind, worker, status, signal } = reply;
          return this.#hear({ kind, worker, status, signal });
        }
        case "said":
          return this.#hearWorker(reply.worker, reply.message);
        default:
          assert.fail(`agent ${agent} sends ${reply.kind}`);
      }
    });
  }

  #hearWorker(worker: number, message: FromWorker): void {
    const { number: generation, members } = this.state.generation;
    switch (message.kind) {
      case "ready": {
        const { kind, generation: left, step } = message;
        return this.#hear({ kind, worker, generation: left, step });
      }
      case "lost": {
        const about = members[message.rank]?.worker;
        if (about === undefined || message.generation !== generation) return;
        return this.#hear({ kind: "reported", by: worker, worker: about, generation });
      }
      case "event":
        if (message.event.type !== "step") return;
        return this.#hear({ kind: "committed", worker, generation, step: message.event.step });
      default:
        assert.fail(`worker ${worker} says ${message.kind}`);
    }
  }

  #takeSigns(): void {
    this.#coordinate(() => {
      const beats = [...this.#signs].map((worker) => ({ worker }));
      this.#signs.clear();
      if (beats.length > 0) this.#hear({ kind: "beats", beats });
    });
  }

  #carryOut(action: Action): void {
    switch (action.kind) {
      case "admit": {
        const agent = this.agents[Number(action.place)] as Agent;
        this.#byWorker.set(action.worker, agent);
        this.#after(20, () => this.#start(agent, action.worker));
        return;
      }
      case "refuse":
        this.#after(action.retryMs, () => this.#join(this.agents[Number(action.place)] as Agent));
        return;
      case "regroup": {
        const { generation, when } = action;
        for (const worker of action.workers)
          this.#tell(worker, { kind: "regroup", generation, when });
        return;
      }
      case "form":
        return this.#form(action.generation);
      case "kill":
        this.#after(20, () => {
          const agent = this.#byWorker.get(action.worker);
          if (agent?.worker === action.worker) this.#end(agent);
          this.#hear({ kind: "ended", worker: action.worker, status: null, signal: "SIGKILL" });
        });
        return;
      case "end":
        assert.fail(action.verdict.text);
      case "dismiss":
      case "wake":
      case "start":
      case "tell":
    }
  }

  #form(generation: Generation): void {
    const { number, members } = generation;
    this.#formed = generation;
    this.#present = 0;
    for (const [rank, { worker, node }] of members.entries()) {
      // The addresses of all members are left out: they would be ten thousand in each message.
      const own = [{ node: rank, address: `${node}:40000` }];
      const form = { kind: "form", generation: number, rank, members: own } as const;
      this.#tell(worker, { ...form, hasBegun: number > 1 });
    }
  }

  /** Writes a message, which takes its time to the worker. */
  #tell(worker: number, message: Told): void {
    const request: AgentRequest = { kind: "tell", worker, message };
    const text = JSON.stringify(envelope(request));
    this.messages += 1;
    this.bytes += text.length;
    this.#after(5, () => {
      const agent = this.#byWorker.get(worker);
      if (agent?.worker === worker && !agent.hangs) {
        this.#told(agent, (JSON.parse(text) as { message: Told }).message);
      }
    });
  }

  // The agents.

  #join(agent: Agent): void {
    this.#hear({ kind: "join", place: `${agent.index}`, node: `host${agent.index}` });
  }

  #start(agent: Agent, worker: number): void {
    Object.assign(agent, {
      worker,
      lives: true,
      hangs: false,
      generation: 0,
      isIn: false,
      step: 0,
    });
    this.#after(500 + this.#random() * 2000, () => {
      if (agent.worker === worker) this.#say(agent, { kind: "ready", generation: 0, step: 0 });
    });
  }

  #say(agent: Agent, message: FromWorker): void {
    const { worker } = agent;
    if (worker !== undefined) this.#send(agent, { kind: "said", worker, message });
  }

  #send({ index }: Agent, reply: AgentReply): void {
    const text = JSON.stringify(envelope(reply));
    this.messages += 1;
    this.bytes += text.length;
    this.#after(1 + this.#random() * 19, () => this.#receive(text, index));
  }

  #told(agent: Agent, message: Told): void {
    switch (message.kind) {
      case "form":
        agent.generation = message.generation;
        agent.isIn = true;
        agent.leavesAfterStep = false;
        if (message.generation === this.#formed?.number) this.#present += 1;
        return;
      case "regroup":
        if (message.generation !== agent.generation || !agent.isIn) return;
        if (message.when === "after-step") agent.leavesAfterStep = true;
        else this.#after(this.#random() * 100, () => this.#leave(agent));
        return;
      default:
    }
  }

  #leave(agent: Agent): void {
    if (!agent.isIn || agent.hangs) return;
    const { generation, step } = agent;
    this.#end(agent, false);
    this.#say(agent, { kind: "ready", generation, step });
  }

  /** The agent's worker is in its generation no more. */
  #end(agent: Agent, dies = true): void {
    if (agent.isIn && agent.generation === this.#formed?.number) this.#present -= 1;
    agent.isIn = false;
    if (!dies || !agent.lives) return;
    [agent.lives, agent.worker] = [false, undefined];
    this.#after(this.#exponential(this.#options.returnMs), () => this.#join(agent));
  }

  #beat(moment: number): void {
    for (let index = moment; index < this.agents.length; index += MOMENTS) {
      const agent = this.agents[index] as Agent;
      const { worker } = agent;
      if (worker === undefined || !agent.lives || agent.hangs) continue;
      this.#send(agent, { kind: "signs", alive: [{ worker }], stopped: [] });
    }
  }

  /** The generation commits a step when all of its members are there. */
  #commit(): void {
    const { members = [], number = 0, step = 0 } = this.#formed ?? {};
    if (members.length === 0 || this.#present < members.length) return;
    const [leader, ...others] = members.map(({ worker }) => this.#byWorker.get(worker) as Agent);
    assert.ok(leader !== undefined && number === this.state.generation.number);
    const committed = Math.max(step, leader.step) + 1;
    this.steps = committed;
    const rates = { learningRate: 0.001, samplesPerSecond: 1000, tokensPerSecond: 1e5 };
    const values = { loss: 1, gradientNorm: 1, ...rates, secondsLeft: 100 };
    const event = { type: "step", step: committed, steps: 1e6, ...values } as const;
    this.#say(leader, { kind: "event", event });
    for (const agent of [leader, ...others]) {
      agent.step = committed;
      if (agent.leavesAfterStep) this.#after(this.#random() * 50, () => this.#leave(agent));
    }
  }

  #dieAtRandom(): void {
    this.#after(this.#exponential(this.#options.deathMs), () => this.#dieAtRandom());
    const agent = this.agents[Math.floor(this.#random() * this.agents.length)] as Agent;
    if (agent.lives && !agent.hangs && !this.#isCalm) this.#die(agent);
  }

  #die(agent: Agent): void {
    const { worker } = agent;
    if (worker === undefined) return;
    this.deaths += 1;
    this.#witness(worker);
    const chance = this.#random();
    if (chance < 0.2) {
      if (agent.isIn) this.#present -= 1;
      [agent.hangs, agent.isIn] = [true, false];
      return;
    }
    this.#end(agent);
    const isSeen = chance < 0.7;
    const end = { status: null, signal: "SIGKILL", words: "" } as const;
    if (isSeen) this.#send(agent, { kind: "ended", worker, ...end });
    else this.#after(5, () => this.#hear({ kind: "closed", worker }));
  }

  /** Another member may notice that a worker is gone before the coordinator does. */
  #witness(worker: number): void {
    const { members = [], number: generation = 0 } = this.#formed ?? {};
    const rank = members.findIndex((member) => member.worker === worker);
    const other = this.#byWorker.get(members[(rank + 1) % members.length]?.worker ?? -1);
    if (rank >= 0 && other?.isIn === true) this.#say(other, { kind: "lost", generation, rank });
  }

  #exponential(mean: number): number {
    return -mean * Math.log(1 - this.#random());
  }
}

interface Entry {
  readonly at: number;
  readonly run: () => void;
}

/** What is to happen, the earliest first: a binary heap. */
class Queue {
  readonly #entries: Entry[] = [];

  first(): Entry | undefined {
    return this.#entries[0];
  }

  add(entry: Entry): void {
    const entries = this.#entries;
    let index = entries.length;
    for (;;) {
      const above = (index - 1) >> 1;
      if (index === 0 || (entries[above] as Entry).at <= entry.at) break;
      entries[index] = entries[above] as Entry;
      index = above;
    }
    entries[index] = entry;
  }

  take(): Entry | undefined {
    const entries = this.#entries;
    const [first] = entries;
    const last = entries.pop();
    if (last === undefined || entries.length === 0) return first;
    let index = 0;
    for (;;) {
      const [left, right] = [entries[2 * index + 1], entries[2 * index + 2]];
      const isRight = right !== undefined && left !== undefined && right.at < left.at;
      const below = isRight ? right : left;
      if (below === undefined || below.at >= last.at) break;
      entries[index] = below;
      index = 2 * index + (isRight ? 2 : 1);
    }
    entries[index] = last;
    return first;
  }
}
