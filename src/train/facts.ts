/** What all workers of a run must have in common, in short texts that can be compared. */
import { createHash } from "node:crypto";
import type { Engine } from "../engine/index.ts";
import { hashGraph } from "../graph/index.ts";
import type { Stage, TrainingPlan } from "../program/index.ts";
import { formatType } from "../tensor/index.ts";
import { version } from "../version.ts";
import type { Facts } from "./agree.ts";
import type { Identity } from "./identity.ts";
import type { Run } from "./run.ts";

export interface FactsOf {
  readonly run: Run;
  readonly engine: Engine;
  readonly plan: TrainingPlan;
  readonly identity: Identity;
  /** The hash of all that the next step begins with. */
  readonly state: string;
  /** The step that comes next. */
  readonly step: number;
}

export function factsOf({ run, engine, plan, identity, state, step }: FactsOf): Facts {
  const { gradient, parameters } = plan;
  const places = [...parameters].map(
    ([name, { byteOffset, type }]) => `${name} ${byteOffset} ${formatType(type)}`,
  );
  const { steps, evaluate } = run;
  const ofRun = Object.entries(identity).map(([name, value]) => [`the ${name}`, value]);
  return {
    "the version of lockstep": version(),
    "the engine": engine.version,
    "the next step": String(step),
    "the number of steps": String(steps),
    ...Object.fromEntries(ofRun),
    "the hash of the weights and slots": state.slice(0, 16),
    // Ranks validate together.
    "the steps between validations": String(evaluate.every),
    "the samples of a validation": String(evaluate.samples),
    "the hash of the collectives": short(
      collectivesOf([...plan.sides[0].totals, ...plan.sides[0].compute]),
    ),
    "the hash of the gradient graph": hashGraph(gradient.graph).slice(0, 16),
    "the hash of the update graphs": short(plan.update.graphs().map(hashGraph)),
    "the hash of the parameters' places": short(places),
  };
}

/** What all ranks of an axis take part in, in order. */
function collectivesOf(stages: readonly Stage[]): string[] {
  return stages.flatMap((stage) => {
    if (stage.mode === "tasks") return [...stage.work.values()].flatMap(collectivesOf);
    return stage.mode === "collective" ? [`${stage.axis} ${stage.call.kind} ${stage.name}`] : [];
  });
}

function short(texts: readonly string[]): string {
  const hash = createHash("sha256");
  for (const text of texts) hash.update(`${text}\n`);
  return hash.digest("hex").slice(0, 16);
}
