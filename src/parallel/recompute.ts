/**
 * Activation recomputation: the activations inside a block are not kept for its backward part, but
 * computed again there from the block's inputs. After Chen et al., "Training Deep Nets with
 * Sublinear Memory Cost", 2016. The repeated nodes are in the graph of the backward piece, because
 * an engine may reorder the nodes within a graph. Only what the backward part needs is repeated: no
 * loss, and no state of the model, so a state is never updated twice. Random layers draw from keys
 * that are inputs, so they draw the same numbers again.
 */
import { LockstepError } from "../errors.ts";
import { type Graph, reach, typeOf } from "../graph/index.ts";
import { flopsOfNodes } from "../ops/index.ts";
import {
  type Blocks,
  backwardOf,
  blocksOf,
  type ComputeTask,
  type Cut,
  cutRepeating,
  isPiece,
  passMemory,
  type Repetition,
  type StepGraph,
} from "../plan/index.ts";
import { byteLength } from "../tensor/index.ts";
import { bytesOfText, textOfBytes } from "./bytes.ts";
import type { Strategy } from "./strategy.ts";

/**
 * `blocks`: every block is computed again. `memory`: as few blocks as it takes, for each running
 * micro-batch; given as `8e6` or `"2 GB"`.
 */
export type Recompute = "blocks" | { readonly memory: number | string };

interface Pass {
  readonly step: StepGraph;
  readonly task: ComputeTask;
  readonly graph: Graph;
  readonly blocks: Blocks;
}

/**
 * The forward nodes of a block that its backward piece needs, with their cost and the memory that
 * they save.
 */
interface Priced extends Repetition {
  readonly flops: number;
  /** The bytes that need not be kept until the backward part. */
  readonly saved: number;
}

/**
 * Returns the strategy. It must come before strategies that cut the pass, which keep its pieces.
 */
export function recompute(how: Recompute): Strategy {
  const memory = how === "blocks" ? undefined : bytesOfText(how.memory);
  return {
    name: `recompute ${memory === undefined ? "blocks" : `within ${textOfBytes(memory)}`}`,
    rewrite(step, mesh) {
      const pieces = step.tasks.filter(isPiece);
      const [task] = pieces;
      if (task === undefined) return step;
      if (pieces.length > 1) {
        const message =
          "recompute comes before the strategies that cut the forward and backward pass.";
        throw new LockstepError("INVALID_OPTION", message);
      }
      if (memory === undefined) return allBlocksAgain(step, task).step;
      const pass = passOf(step, task);
      return withinMemory(pass, repetitionsOf(pass), memory, mesh.size > 1);
    },
  };
}

function passOf(step: StepGraph, task: ComputeTask): Pass {
  const graph = step.graphs.get(task.graph) as Graph;
  return { step, task, graph, blocks: blocksOf(step, task) };
}

export interface CutBlocks extends Cut {
  readonly blocks: number;
}

/**
 * Cuts a pass at its blocks, all of which are computed again.
 * @throws INVALID_OPTION if there is nothing to compute again
 */
export function allBlocksAgain(step: StepGraph, task: ComputeTask): CutBlocks {
  const pass = passOf(step, task);
  const found = repetitionsOf(pass);
  const { blocks } = pass;
  if (found.length > 0) {
    return { ...cutRepeating(step, task, blocks.pieceOf, found), blocks: blocks.count };
  }
  throw new LockstepError(
    "INVALID_OPTION",
    `recompute: the model of "${step.name}" has ${pass.blocks.count} block, and nothing in it can be computed again.`,
    {
      hint: "Blocks are found by the names of parameters, as in blocks.0.weight, blocks.1.weight.",
    },
  );
}

/** Returns the repetitions that save memory. */
function repetitionsOf({ graph, blocks }: Pass): Priced[] {
  const { count, pieceOf, blockOf } = blocks;
  const readers = new Map<string, Set<number>>();
  for (const node of graph.nodes) {
    const piece = pieceOf.get(node) as number;
    for (const name of node.inputs) readers.set(name, (readers.get(name) ?? new Set()).add(piece));
  }
  return Array.from({ length: count - 1 }, (_, block): Priced => {
    const piece = backwardOf(count, block);
    // A value that other nodes read too is kept.
    const isOwn = (name: string) =>
      blockOf.get(name) === block &&
      !graph.outputs.includes(name) &&
      [...(readers.get(name) ?? [])].every((reader) => reader === block || reader === piece);
    const needed = [...blockOf.keys()].filter((n) => isOwn(n) && readers.get(n)?.has(piece));
    const bytes = needed.map((name) => byteLength(typeOf(graph, name)));
    const own = graph.nodes.filter((node) => pieceOf.get(node) === block);
    const { nodes } = reach(own, needed, (name) => !isOwn(name));
    const saved = bytes.reduce((sum, each) => sum + each, 0);
    return { piece, nodes, flops: flopsOfNodes(graph, nodes), saved };
  }).filter(({ saved }) => saved > 0);
}

function repeat({ step, task, blocks }: Pass, chosen: readonly Repetition[]): StepGraph {
  return cutRepeating(step, task, blocks.pieceOf, chosen).step;
}

/**
 * Chooses as few repeated operations as the memory requires.
 * @param isCut whether other strategies may cut the pass, so that it has to fit in pieces too
 * @throws INVALID_OPTION when all blocks are not enough
 */
function withinMemory(
  pass: Pass,
  found: readonly Priced[],
  memory: number,
  isCut: boolean,
): StepGraph {
  const sizeOf = (step: StepGraph) => {
    const { between, within } = passMemory(step);
    return between + within;
  };
  const without = sizeOf(pass.step);
  if (!isCut && without <= memory) return pass.step;
  const byWorth = found.toSorted((a, b) => a.flops / a.saved - b.flops / b.saved);
  const first = (count: number) => repeat(pass, byWorth.slice(0, count));
  if (without <= memory && sizeOf(first(0)) <= memory) return first(0);
  const least = found.length === 0 ? without : sizeOf(first(found.length));
  if (least > memory) {
    throw new LockstepError(
      "INVALID_OPTION",
      `recompute: the activations of a micro-batch take ${textOfBytes(without)}, or ${textOfBytes(least)} with all blocks computed again, which is more than the limit of ${textOfBytes(memory)}.`,
      {
        hint: `Set the limit to ${textOfBytes(least)} or more, or use more micro-batches, which are smaller.`,
      },
    );
  }
  let [tooFew, enough] = [0, found.length];
  while (enough - tooFew > 1) {
    const middle = Math.floor((tooFew + enough) / 2);
    if (sizeOf(first(middle)) <= memory) enough = middle;
    else tooFew = middle;
  }
  const chosen = first(enough);
  let spare = memory - sizeOf(chosen);
  // The last one may have made earlier ones unnecessary.
  const fewer = byWorth.slice(0, enough).filter(({ saved }, index) => {
    if (saved > spare || index === enough - 1) return true;
    spare -= saved;
    return false;
  });
  const other = repeat(pass, fewer);
  return sizeOf(other) <= memory ? other : chosen;
}
