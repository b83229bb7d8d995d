/**
 * Activation recomputation: what the forward part of a block makes for its own backward part is not kept, but computed again there out of
 * what entered the block. After Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016. The repeated nodes stand in the graph of
 * the backward piece, for an engine orders the nodes of one graph as it likes. Only what the backward part needs is repeated: no loss, and
 * no state of the model, which is so never updated twice. Random layers draw from keys that are inputs, so they repeat what they drew.
 */
import { LockstepError } from "../errors.ts";
import { type Graph, reach, typeOf } from "../graph/index.ts";
import { flopsOfNodes } from "../ops/index.ts";
import {
  type Blocks,
  backwardOf,
  blocksOf,
  type ComputeTask,
  cutRepeating,
  isPiece,
  passMemory,
  type Repetition,
  type StepGraph,
} from "../plan/index.ts";
import { byteLength } from "../tensor/index.ts";
import { bytesOfText, textOfBytes } from "./bytes.ts";
import type { Strategy } from "./strategy.ts";

/** `blocks`: every block is computed again. `memory`: as few as it takes, for each micro-batch at work. As in `8e6` or `"2 GB"`. */
export type Recompute = "blocks" | { readonly memory: number | string };

interface Pass {
  readonly step: StepGraph;
  readonly task: ComputeTask;
  readonly graph: Graph;
  readonly blocks: Blocks;
}

/** The forward nodes of a block that its backward piece needs, what they take and what they save. */
interface Priced extends Repetition {
  readonly flops: number;
  /** Bytes that need not be kept until the backward part. */
  readonly saved: number;
}

/** It comes before strategies that cut the pass: they keep its pieces. */
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
      const graph = step.graphs.get(task.graph) as Graph;
      const pass = { step, task, graph, blocks: blocksOf(step, task) };
      const found = repetitionsOf(pass);
      if (memory !== undefined) return withinMemory(pass, found, memory, mesh.size > 1);
      if (found.length > 0) return repeat(pass, found);
      throw new LockstepError(
        "INVALID_OPTION",
        `recompute: the model of "${step.name}" has ${pass.blocks.count} block, and nothing in it that could be computed again.`,
        {
          hint: "Blocks are read off the names of parameters, as in blocks.0.weight, blocks.1.weight.",
        },
      );
    },
  };
}

/** Those that save something. */
function repetitionsOf({ graph, blocks }: Pass): Priced[] {
  const { count, pieceOf, blockOf } = blocks;
  const readers = new Map<string, Set<number>>();
  for (const node of graph.nodes) {
    const piece = pieceOf.get(node) as number;
    for (const name of node.inputs) readers.set(name, (readers.get(name) ?? new Set()).add(piece));
  }
  return Array.from({ length: count - 1 }, (_, block): Priced => {
    const piece = backwardOf(count, block);
    // What others read too is kept.
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
  return cutRepeating(step, task, blocks.pieceOf, chosen);
}

/**
 * As few repeated operations as it takes.
 * @param isCut whether other strategies may cut the pass: then it has to fit in pieces too
 * @throws INVALID_OPTION where all blocks are not enough
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
      `recompute: the activations of a micro-batch take ${textOfBytes(without)}, and ${textOfBytes(least)} with all blocks computed again, which is more than the ${textOfBytes(memory)} that are stated.`,
      { hint: `State ${textOfBytes(least)} or more, or more micro-batches, which are smaller.` },
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
  // The last one may have made some before it needless.
  const fewer = byWorth.slice(0, enough).filter(({ saved }, index) => {
    if (saved > spare || index === enough - 1) return true;
    spare -= saved;
    return false;
  });
  const other = repeat(pass, fewer);
  return sizeOf(other) <= memory ? other : chosen;
}
