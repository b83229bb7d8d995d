/**
 * Context parallelism: the ranks of an axis have a part of each sequence and all parameters. What is
 * computed token by token needs nothing of other ranks, and attention brings keys and values
 * together, or heads: whatever is found to take less time (`sharding/`). Each rank ends with its
 * terms of gradients and losses, which are summed once in a step. After Dubey et al., "The Llama 3
 * Herd of Models", 2024 (keys and values), and Jacobs et al., "DeepSpeed Ulysses", 2023 (heads).
 */
import { LockstepError } from "../errors.ts";
import { type Division, type Graph, type Node, readAttributes, typeOf } from "../graph/index.ts";
import { type AxisPlacement, axisOf, isSamePlacement, isShard, type Shard } from "../mesh/index.ts";
import { type DividedOver, operators, sectionedDim } from "../ops/index.ts";
import {
  type ComputeTask,
  forwardNodes,
  GRADIENT,
  isPiece,
  type StepGraph,
  valueOf,
} from "../plan/index.ts";
import { isFloat, normalizeDim } from "../tensor/index.ts";
import { checkTotals } from "./first-totals.ts";
import { withSums } from "./part-terms.ts";
import { ringCut, ringsWrittenOut } from "./rings.ts";
import { noSequence, type Sequence, sequenceOf } from "./sequence.ts";
import type { RankSpeed } from "./sharding/costs.ts";
import { dividePass, SPEED } from "./sharding/divide.ts";
import { follow, nodesBehind } from "./sharding/follow.ts";
import { overlappingSlices, takenAgain } from "./sharding/slices.ts";
import type { Choice, SolveOptions } from "./sharding/solve.ts";
import { viewsOf } from "./sharding/views.ts";
import type { Strategy } from "./strategy.ts";

export interface ContextOptions {
  /** The axis of the mesh. Default: `context`. */
  readonly axis?: string;
  readonly speed?: RankSpeed;
}

/** The least part of the work that ranks must share. */
const LEAST_SHARED = 0.5;

export function context({ axis = "context", speed = SPEED }: ContextOptions = {}): Strategy {
  return {
    name: `sequences divided over "${axis}"`,
    rewrite(step, mesh) {
      const ranks = axisOf(mesh, axis).size;
      const [pass, ...others] = step.tasks.filter(isPiece);
      if (ranks === 1 || pass === undefined) return step;
      if (others.length > 0) {
        throw new LockstepError(
          "INVALID_OPTION",
          `A pass that is in pieces already cannot be divided over "${axis}".`,
          { hint: "Put context parallelism before the strategies that cut the pass." },
        );
      }
      const what = `parallel: ${axis} ${ranks}`;
      checkTotals(step, "parallel: context");
      const sequence = sequenceOf(step, what);
      if (sequence.length % ranks !== 0) {
        throw new LockstepError(
          "INVALID_OPTION",
          `${what} cannot cut sequences of ${sequence.length} tokens evenly.`,
          { hint: "Use a number of workers that divides the length, or another length." },
        );
      }
      const graph = step.graphs.get(pass.graph) as Graph;
      const summed = withSums(step, pass, axis);
      const ways = waysOf({ step: summed, sequence, axis, ranks }, graph);
      const divided = dividePass(graph, speed, ways);
      const local = ringsWrittenOut(divided.graph);
      if (divided.shared < LEAST_SHARED) {
        throw noSequence(
          `${what} finds no sequences in this model: workers would share ${Math.round(100 * divided.shared)}% of the work of a batch.`,
        );
      }
      const graphs = (own: Graph) => new Map(step.graphs).set(GRADIENT, own);
      const task = summed.tasks.find(isPiece) as ComputeTask;
      const forward = forwardNodes({ ...summed, graphs: graphs(local) }, task);
      return { ...summed, graphs: graphs(takenAgain(local, new Set(forward))) };
    },
  };
}

interface Over {
  readonly step: StepGraph;
  readonly sequence: Sequence;
  readonly axis: string;
  readonly ranks: number;
}

/** One way for each way to cut the sequences. */
function waysOf({ step, sequence, axis, ranks }: Over, graph: Graph): SolveOptions[] {
  const [pass] = step.tasks.filter(isPiece) as [ComputeTask];
  const outputs = new Map(
    graph.outputs.map((name, index) => {
      const { placement } = valueOf(step, pass.outputs[index] as string);
      return [name, { on: placement[axis] }] as const;
    }),
  );
  return cutsOf(graph, sequence, ranks).map((on) => {
    const inputs = new Map<string, readonly Choice[]>();
    const divided = new Set<string>();
    const samples = new Map<string, Shard>();
    for (const [index, name] of graph.inputs.entries()) {
      const { role, of } = valueOf(step, pass.inputs[index] as string);
      inputs.set(name, [{ on: undefined, seconds: 0 }]);
      if (role === "batch" && sequence.fields.has(of)) divided.add(name);
      const [count = 0] = typeOf(graph, name).shape;
      if (role === "batch" && count % ranks === 0) samples.set(name, { shard: 0 });
    }
    const proportions = on.sections === undefined ? [[1]] : [[1], on.sections];
    const over: DividedOver = { axis, ranks, proportions };
    const isOther = (name: string, own: AxisPlacement | undefined) =>
      divided.has(name) && isShard(own) && !isSamePlacement(own, on);
    const isOfGraph = allowedIn(graph, samples, over);
    const forward = new Set(forwardNodes(step, pass));
    const allows = (node: Node, division: Division) =>
      isOfGraph(node, division) &&
      !(forward.has(node) && isProductOfTerms(graph, node, division)) &&
      !node.inputs.some((name, at) => isOther(name, division.inputs[at]));
    return { over, inputs, outputs, divided, views: viewsOf(graph, divided), allows };
  });
}

/**
 * Samples are not divided: that is what `data` is for. And of what is read in slices that overlap,
 * such as the keys up to a block of queries, slices are taken when all of it is there: brought
 * together once, not slice by slice. What is made of constants alone is small, and made whole.
 */
function allowedIn(graph: Graph, inputs: ReadonlyMap<string, Shard>, over: DividedOver) {
  const samples = follow(graph, inputs, over);
  const overlapping = overlappingSlices(graph);
  const given = nodesBehind(graph, new Set(graph.inputs));
  const isSamples = (name: string, on: AxisPlacement | undefined) =>
    isShard(on) && isSamePlacement(on, samples.get(name));
  return (node: Node, division: Division): boolean => {
    const [first] = division.inputs;
    const shared = overlapping.get(node);
    if (!given.has(node)) return false;
    if (isShard(first) && shared?.includes(first.shard as number) === true) return false;
    return (
      !node.inputs.some((name, at) => isSamples(name, division.inputs[at])) &&
      !node.outputs.some((name, at) => isSamples(name, division.outputs[at]))
    );
  };
}

/** Whether a product of two values becomes the terms of a sum. */
function isProductOfTerms(graph: Graph, node: Node, { inputs, outputs }: Division): boolean {
  const isTerm = (on: AxisPlacement | undefined) => typeof on === "string";
  const factors = node.inputs.filter(
    (name) => name !== "" && !graph.constants.has(name) && isFloat(typeOf(graph, name).dtype),
  );
  return factors.length > 1 && outputs.some(isTerm) && !inputs.some(isTerm);
}

/**
 * Ways to cut a sequence: in one piece for each rank; or, where attention is computed for a block of
 * queries after the other, each block, so that ranks have as much to do with early queries, which
 * see few keys, as with late ones.
 */
function cutsOf(graph: Graph, sequence: Sequence, ranks: number): Shard[] {
  const { length, dim } = sequence;
  const ring = ringCut(graph, sequence, ranks);
  if (ring !== undefined) return [ring];
  const found = new Map<string, Shard>([["", { shard: dim }]]);
  for (const { op, inputs, outputs, attributes, name } of graph.nodes) {
    if (op !== "Concat") continue;
    const { shape } = typeOf(graph, outputs[0] as string);
    const given = readAttributes(operators.Concat, attributes, name).number("axis");
    const axis = normalizeDim(given, shape.length) as number;
    const sizes = inputs.map((piece) => typeOf(graph, piece).shape[axis] as number);
    const isBlocks = shape[axis] === length && sizes.length > 1;
    const on = isBlocks ? sectionedDim(dim, length, sizes, ranks) : undefined;
    if (on !== undefined) found.set(sizes.join(), on);
  }
  return [...found.values()];
}
