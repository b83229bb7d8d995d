/** What a step takes of a machine, in numbers: what a choice between strategies is made from. */
import type { Graph } from "../graph/index.ts";
import { flopsOf, type Work, workOf } from "../ops/index.ts";
import { type Optimizer, rulesOf } from "../optimizer/index.ts";
import { byteLength } from "../tensor/index.ts";
import { isPiece, isRepeating, type PassMemory, passMemory } from "./pass.ts";
import { cutAtUnits, phasesOf } from "./phases.ts";
import {
  bytesOf,
  type ComputeTask,
  isOfKind,
  type StepGraph,
  valueName,
  valueOf,
} from "./step-graph.ts";

/**
 * Private memory of a worker beside its tensors: Node.js and the modules, the plan and compiled
 * graphs, and what the engine's arena keeps for itself. Measured by `npm run bench -- memory`.
 */
export const PROCESS_BYTES = 78 * 2 ** 20;

/**
 * The bytes that a rank reads and writes in a second when it sums, copies or updates. It was
 * measured with AdamW, which takes 2.4 to 2.8 ns for the 28 bytes of an element.
 */
export const MEMORY_SPEED = 1e10;

/** Sizes are in bytes and of the whole step, before anything is divided among ranks. */
export interface StepFacts {
  readonly microBatches: number;
  readonly parameters: number;
  /** All that is summed over micro-batches. */
  readonly gradients: number;
  /** Optimizer slots that are updated element by element, so that ranks can divide them. */
  readonly slots: number;
  /** Optimizer slots of rules that need whole parameters: every rank has them. */
  readonly wholeSlots: number;
  /** New parameters that cannot be written over the old ones. */
  readonly scratch: number;
  /** The first rule that needs whole parameters and their gradients, if there is one. */
  readonly wholeRule: string | undefined;
  /** The largest gradient of one parameter. */
  readonly largestGradient: number;
  /** Floating-point operations of the forward and backward pass of a micro-batch. */
  readonly flops: number;
  /** The same by operator, with the bytes that each moves. */
  readonly work: readonly Work[];
  /** The largest unit of parameters, which are gathered together. */
  readonly largestUnit: number;
  /** Parameters that are gathered in one pass: those of a unit once forward and once backward. */
  readonly gathered: number;
  /** Activations of a micro-batch with the pass as it stands in the step. */
  readonly pass: PassMemory;
  /** The same with the pass in pieces. It takes longer to compute, so only if it is asked for. */
  readonly inPieces: () => PassMemory;
  /** Whether the pass computes activations again: then it is never run as a whole. */
  readonly isRepeating: boolean;
}

/** By step, with the optimizer whose rules it names: ranks come and go, and the step stays. */
const known = new WeakMap<StepGraph, { optimizer: Optimizer; facts: StepFacts }>();

/** @param step of one process, before any strategy; or with the pass cut by `recompute` alone */
export function stepFacts(step: StepGraph, optimizer: Optimizer): StepFacts {
  const found = known.get(step);
  if (found?.optimizer === optimizer) return found.facts;
  const facts = factsOf(step, optimizer);
  known.set(step, { optimizer, facts });
  return facts;
}

function factsOf(step: StepGraph, optimizer: Optimizer): StepFacts {
  const rules = rulesOf(optimizer);
  const updates = step.tasks.filter(isOfKind("update"));
  const pieces = step.tasks.filter(isPiece);
  const parameters = [...step.values].filter(
    ([name, { role, of }]) => role === "parameter" && name === valueName("parameter", of),
  );
  const slotsOf = (granularity: "element" | "tensor") =>
    bytesOf(
      step,
      updates
        .filter((task) => task.granularity === granularity)
        .flatMap(({ inputs }) => inputs.filter((name) => valueOf(step, name).role === "slot")),
    );
  const parameterBytes = bytesOf(
    step,
    parameters.map(([name]) => name),
  );
  const summed = step.tasks.filter(isOfKind("reduce")).flatMap(({ outputs }) => outputs);
  const whole = updates.find(({ granularity }) => granularity === "tensor");
  const gathers = gatheredSizes(step, pieces);
  const pass = passMemory(step);
  const [first] = pieces;
  const isCut = pieces.length > 1 || first === undefined;
  let inPieces: PassMemory | undefined = isCut ? pass : undefined;
  return {
    microBatches: step.microBatches,
    parameters: parameterBytes,
    gradients: summed.length === 0 ? parameterBytes : bytesOf(step, summed),
    slots: slotsOf("element"),
    wholeSlots: slotsOf("tensor"),
    scratch: updates.some(({ rule }) => rules[rule]?.rule.inPlace === false) ? parameterBytes : 0,
    wholeRule: whole && rules[whole.rule]?.rule.name,
    largestGradient: Math.max(0, ...parameters.map(([, { type }]) => byteLength(type))),
    flops: pieces.reduce((sum, { graph }) => sum + flopsOf(step.graphs.get(graph) as Graph), 0),
    work: pieces.flatMap(({ graph }) => workOf(step.graphs.get(graph) as Graph)),
    largestUnit: Math.max(0, ...gathers),
    gathered: gathers.reduce((sum, bytes) => sum + bytes, 0),
    pass,
    inPieces: () => (inPieces ??= passMemory(cutAtUnits(step, first as ComputeTask).step)),
    isRepeating: isRepeating(step),
  };
}

/** By piece: the parameters that it would gather. */
function gatheredSizes(step: StepGraph, pieces: readonly ComputeTask[]): number[] {
  const [first] = pieces;
  const isParameter = (name: string) => valueOf(step, name).role === "parameter";
  if (pieces.length > 1 || first === undefined) {
    return pieces.map(({ inputs }) => bytesOf(step, inputs.filter(isParameter)));
  }
  return phasesOf(step, first).phases.map((parameters) => bytesOf(step, parameters));
}
