/**
 * Expert parallelism: the ranks of an axis have some of the experts of each mixture each, all other
 * parameters, and a part of the samples of each micro-batch. Tokens travel by all-to-all to the rank
 * that has their expert, and back. After Lepikhin et al., "GShard", 2020, and Rajbhandari et al.,
 * "DeepSpeed-MoE", 2022. It is the search of `tensor` and `context` with other givens (`sharding/`).
 */
import { LockstepError } from "../errors.ts";
import { type Division, type Graph, type Node, typeOf } from "../graph/index.ts";
import { axisOf, isSamePlacement, type Mesh, type Shard } from "../mesh/index.ts";
import type { DividedOver } from "../ops/index.ts";
import { type ComputeTask, GRADIENT, isPiece, type StepGraph, valueOf } from "../plan/index.ts";
import { type Experts, expertsOf } from "./experts-of.ts";
import { checkTotals } from "./first-totals.ts";
import { withSums } from "./part-terms.ts";
import { isUpdatedWhole, placedValues, valueOfInput } from "./placed.ts";
import type { RankSpeed } from "./sharding/costs.ts";
import { dividePass, divisionIn, SPEED } from "./sharding/divide.ts";
import type { GraphDivision } from "./sharding/localize.ts";
import type { Choice, SolveOptions } from "./sharding/solve.ts";
import { viewsOf } from "./sharding/views.ts";
import type { Strategy } from "./strategy.ts";

export interface ExpertOptions {
  /** The axis of the mesh. Default: `expert`. */
  readonly axis?: string;
  readonly speed?: RankSpeed;
}

/** Samples are the first dim of a batch, and experts that of their parameters. */
const FIRST: Shard = { shard: 0 };

export function experts({ axis = "expert", speed = SPEED }: ExpertOptions = {}): Strategy {
  return {
    name: `experts divided over "${axis}"`,
    rewrite(step, mesh) {
      const ranks = axisOf(mesh, axis).size;
      const [pass, ...others] = step.tasks.filter(isPiece);
      if (ranks === 1 || pass === undefined) return step;
      const what = `parallel: ${axis} ${ranks}`;
      if (others.length > 0) {
        throw new LockstepError(
          "INVALID_OPTION",
          `A pass that is in pieces already cannot be divided over "${axis}".`,
          { hint: "Put expert parallelism before the strategies that cut the pass." },
        );
      }
      checkTotals(step, what);
      const { own, divided } = dividedOver(step, pass, { axis, ranks, speed });
      return { ...own, graphs: new Map(step.graphs).set(GRADIENT, divided.graph) };
    },
  };
}

/** How the ranks of an axis share experts and samples. Undefined: they do not. */
export function expertDivision(
  step: StepGraph,
  mesh: Mesh,
  { axis = "expert", speed = SPEED }: ExpertOptions = {},
): GraphDivision | undefined {
  const ranks = mesh.axes.find(({ name }) => name === axis)?.size ?? 1;
  const [pass] = step.tasks.filter(isPiece);
  if (ranks === 1 || pass === undefined) return undefined;
  const { divided } = dividedOver(step, pass, { axis, ranks, speed });
  return divisionIn(step.graphs.get(pass.graph) as Graph, divided);
}

interface Ranks {
  readonly axis: string;
  readonly ranks: number;
  readonly speed: RankSpeed;
}

/** The pass as ranks share it, and the step in which their gradients are summed. */
function dividedOver(step: StepGraph, pass: ComputeTask, { axis, ranks, speed }: Ranks) {
  const graph = step.graphs.get(pass.graph) as Graph;
  const found = expertsOf(step, pass, graph);
  checkExperts(step, pass, graph, { found, ranks, what: `parallel: ${axis} ${ranks}` });
  const placed = new Map(
    [...found.counts.keys()].map((name) => [valueOfInput(step, pass, name), FIRST] as const),
  );
  const own = withSums({ ...step, values: placedValues(step, placed, axis) }, pass, axis);
  const ways = wayOf(own, graph, found, { axis, ranks, proportions: [[1]] });
  return { own, divided: dividePass(graph, speed, [ways]) };
}

function checkExperts(
  step: StepGraph,
  pass: ComputeTask,
  graph: Graph,
  { found, ranks, what }: { found: Experts; ranks: number; what: string },
): void {
  const refuse = (why: string, hint: string): never => {
    throw new LockstepError("INVALID_OPTION", `${what} ${why}.`, { hint });
  };
  if (found.counts.size === 0) {
    refuse(
      "divides experts, which this model does not have",
      "Use data, shard, tensor, context or pipeline instead, or a model with experts (docs/experts.md).",
    );
  }
  for (const [name, count] of found.counts) {
    const { of } = valueOf(step, valueOfInput(step, pass, name));
    if (count % ranks !== 0) {
      refuse(
        `cannot share ${count} experts ("${of}") evenly`,
        "Use a number of workers that divides the number of experts.",
      );
    }
    if (isUpdatedWhole(step, of)) {
      refuse(`divides "${of}", which its optimizer updates whole`, "Use another optimizer for it.");
    }
  }
  for (const name of graph.inputs) {
    const { role, of } = valueOf(step, valueOfInput(step, pass, name));
    const [samples = 1] = typeOf(graph, name).shape;
    if (role !== "batch" || samples % ranks === 0) continue;
    refuse(
      `cannot share the ${samples} samples of a micro-batch ("${of}") evenly`,
      "Use a larger batch, or fewer micro-batches, so that their samples divide by it.",
    );
  }
}

function wayOf(step: StepGraph, graph: Graph, found: Experts, over: DividedOver): SolveOptions {
  const [pass] = step.tasks.filter(isPiece) as [ComputeTask];
  const outputs = new Map(
    graph.outputs.map((name, index) => {
      const { placement } = valueOf(step, pass.outputs[index] as string);
      return [name, { on: placement[over.axis] }] as const;
    }),
  );
  const inputs = new Map<string, readonly Choice[]>();
  const divided = new Set<string>();
  for (const name of graph.inputs) {
    const { role } = valueOf(step, valueOfInput(step, pass, name));
    inputs.set(name, [{ on: found.counts.has(name) ? FIRST : undefined, seconds: 0 }]);
    if (role === "batch") divided.add(name);
  }
  // Whoever has an expert computes it: no matrices of experts are sent.
  const allows = (node: Node, { inputs: read }: Division) =>
    node.inputs.every((name, at) => !found.held.has(name) || isSamePlacement(read[at], FIRST)) &&
    node.inputs.every((name, at) => !divided.has(name) || isSamePlacement(read[at], FIRST));
  return { over, inputs, outputs, divided, views: viewsOf(graph, divided), allows };
}
