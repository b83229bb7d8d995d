/** The facts that must be equal on all workers of a run, as short texts that can be compared. */
import { createHash } from "node:crypto";
import type { Device } from "../engine/index.ts";
import { type Graph, hashGraph } from "../graph/index.ts";
import { version } from "../package.ts";
import type { Parallel } from "../parallel/index.ts";
import { GRADIENT, type StepGraph } from "../plan/index.ts";
import type { Stage, StepProgram } from "../program/index.ts";
import { formatType } from "../tensor/index.ts";
import type { Trainer } from "../train/index.ts";
import type { Facts } from "./agree.ts";
import type { Identity } from "./identity.ts";
import type { Run } from "./run.ts";

export interface FactsOf {
  readonly run: Run;
  readonly engine: Device;
  readonly planned: StepGraph;
  readonly program: StepProgram;
  readonly parallel: Parallel;
  readonly identity: Identity;
  /** The hash of everything that the next step begins with. */
  readonly state: string;
  /** The index of the next step. */
  readonly step: number;
}

export function factsOf(of: FactsOf): Facts {
  const { run, engine, planned, program, parallel, identity, state, step } = of;
  const { parameters, sides, updateHashes } = program;
  const gradient = planned.graphs.get(GRADIENT) as Graph;
  const places = [...parameters].map(
    ([name, { byteOffset, type }]) => `${name} ${byteOffset} ${formatType(type)}`,
  );
  const { steps, evaluate } = run;
  // Each collective is listed once, because replicas of a sharded step may have different numbers
  // of waves.
  const collectives = collectivesOf([...sides[0].totals, ...sides[0].compute]);
  const ofRun = Object.entries(identity).map(([name, value]) => [`the ${name}`, value]);
  return {
    "the version of lockstep": version(),
    "the engine": engine.version,
    "the next step": String(step),
    "the number of steps": String(steps),
    ...Object.fromEntries(ofRun),
    "the hash of the weights and slots": state.slice(0, 16),
    // All ranks validate together.
    "the steps between validations": String(evaluate.every),
    "the samples of a validation": String(evaluate.samples),
    "the way to share a step": JSON.stringify(parallel.stated),
    "the hash of the collectives": short([...new Set(collectives)]),
    "the micro-batches at once, which threads decide": String(program.atOnce ?? "any"),
    "the hash of the gradient graph": hashGraph(gradient).slice(0, 16),
    "the hash of the update graphs": short(updateHashes),
    "the hash of the parameters' places": short(places),
  };
}

/** Lists what all ranks of an axis take part in, in order; not what each stage of a pipeline has of its own. */
function collectivesOf(stages: readonly Stage[]): string[] {
  return stages.flatMap((stage) => {
    if (stage.mode === "tasks") return stage.tasks.flatMap(({ work }) => collectivesOf(work));
    if (stage.mode !== "collective" || stage.ofStage !== undefined) return [];
    return [`${stage.group} ${stage.call.kind} ${stage.name}`];
  });
}

function short(texts: readonly string[]): string {
  const hash = createHash("sha256");
  for (const text of texts) hash.update(`${text}\n`);
  return hash.digest("hex").slice(0, 16);
}

interface Here extends Pick<FactsOf, "run" | "engine" | "identity" | "state"> {
  readonly trainer: Trainer;
}

/** The facts of the next step, by a trainer of it. */
export function factsHere({ trainer, ...here }: Here): Facts {
  const { planned, plan, steps } = trainer;
  const { step, parallel } = planned;
  return factsOf({ ...here, planned: step, program: plan, parallel, step: steps });
}
