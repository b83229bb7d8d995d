/** Lets a crowd of simulated agents live for some simulated minutes, in a process of its own. */
import { Crowd } from "../test/support/crowd.ts";

export interface MembershipRequest {
  readonly agents: number;
  readonly minutes: number;
}

export interface MembershipMeasurement {
  /** Of all decisions, in ms. */
  readonly median: number;
  readonly p99: number;
  readonly max: number;
  readonly decisions: number;
  /** Seconds of the coordinator, and of it with its simulated agents. */
  readonly coordinator: number;
  readonly all: number;
  readonly messages: number;
  readonly steps: number;
  readonly deaths: number;
  readonly generations: number;
  readonly peakBytes: number;
  readonly stateBytes: number;
}

const { agents, minutes } = JSON.parse(process.argv[2] ?? "") as MembershipRequest;
const crowd = new Crowd({ agents, seed: 1, stepMs: 1000, deathMs: 10_000, returnMs: 20_000 });
const start = performance.now();
crowd.pass(minutes * 60_000);
const all = (performance.now() - start) / 1000;
const sorted = Float64Array.from(crowd.decisions).sort();
const at = (part: number) => sorted[Math.floor((sorted.length - 1) * part)] ?? Number.NaN;
const measured: MembershipMeasurement = {
  median: at(0.5),
  p99: at(0.99),
  max: at(1),
  decisions: sorted.length,
  coordinator: crowd.busyMs / 1000,
  all,
  messages: crowd.messages,
  steps: crowd.steps,
  deaths: crowd.deaths,
  generations: crowd.state.generation.number,
  peakBytes: process.resourceUsage().maxRSS * 1024,
  stateBytes: JSON.stringify(crowd.state).length,
};
console.log(JSON.stringify(measured));
