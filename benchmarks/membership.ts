/**
 * Does one core lead a run of ten thousand agents that join, beat and die at random? They are
 * simulated, with their network and their clock; the coordinator that reads, decides and answers is
 * the real one.
 */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { MembershipMeasurement, MembershipRequest } from "./membership-child.ts";
import type { Benchmark, Row } from "./report.ts";

const AGENTS = [100, 1_000, 10_000];
const MINUTES = 5;

export const membership: Benchmark = {
  name: "membership",
  question: "Does one core lead 10,000 agents that join, beat and die at random?",
  run: () => Promise.resolve({ rows: AGENTS.flatMap(measure), missing: [] }),
};

function measure(agents: number): Row[] {
  const child = fileURLToPath(new URL("./membership-child.js", import.meta.url));
  const request: MembershipRequest = { agents, minutes: MINUTES };
  const text = execFileSync(process.execPath, [child, JSON.stringify(request)], {
    encoding: "utf8",
  });
  const found = JSON.parse(text) as MembershipMeasurement;
  const seconds = 60 * MINUTES;
  const name = `${agents.toLocaleString("en-US")} agents`;
  const row = (what: string, value: number, unit: string): Row => ({
    case: `${name}: ${what}`,
    value,
    unit,
  });
  const speed = seconds / found.coordinator;
  return [
    {
      ...row(`speed of one core (${MINUTES} simulated minutes)`, speed, "x real time"),
      goal: "above 1",
      reached: speed > 1,
    },
    row("speed, with the simulation of the agents", seconds / found.all, "x real time"),
    row("a decision, median", found.median, "ms"),
    row("a decision, p99", found.p99, "ms"),
    row("a decision, longest", found.max, "ms"),
    row("decisions", found.decisions, ""),
    row("messages", found.messages / seconds, "/s"),
    row("workers that died", found.deaths, ""),
    row("generations", found.generations, ""),
    row("committed steps of 1 s", found.steps, ""),
    row("memory, agents included", found.peakBytes / 2 ** 20, "MiB"),
    row("state as JSON", found.stateBytes / 2 ** 20, "MiB"),
  ];
}
