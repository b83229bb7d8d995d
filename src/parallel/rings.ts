/**
 * Attention whose keys and values go round the ranks of an axis (`lockstep::RingAttention`): after Liu
 * et al., "Ring Attention with Blockwise Transformers", 2023, with the parts of Brandon et al.,
 * "Striped Attention", 2023.
 */
import { LockstepError } from "../errors.ts";
import { type Graph, type Node, readAttributes, typeOf, validateGraph } from "../graph/index.ts";
import type { Shard } from "../mesh/index.ts";
import { builderLike, operators, remade, sectionedDim, writtenAs } from "../ops/index.ts";
import { forwardNodes, GRADIENT, isPiece, type StepGraph } from "../plan/index.ts";
import type { Sequence } from "./sequence.ts";
import type { Strategy } from "./strategy.ts";
import type { Axes } from "./workers.ts";

const RINGS = ["lockstep::RingAttention", "lockstep::RingAttentionGradient"] as const;
/** How attention of sequences that workers divide is computed. `auto`: by heads or by queries. */
export type Attention = "ring" | "auto";

interface Stated {
  readonly attention?: Attention | undefined;
  readonly parallel?: Axes | undefined;
}

function isRing({ op }: Node): boolean {
  return (RINGS as readonly string[]).includes(op);
}

/** The number of attentions of a pass that can go in rings. */
export function countRings({ nodes }: Graph): number {
  return nodes.filter(({ op }) => op === RINGS[0]).length;
}

/** @throws INVALID_OPTION for a ring of which no worker is asked to have a part */
export function checkRings({ attention, parallel }: Stated): void {
  if (attention !== "ring" || (parallel?.context ?? 1) > 1) return;
  throw new LockstepError(
    "INVALID_OPTION",
    `attention: "ring" is for workers that divide sequences, which this run does not state.`,
    {
      hint: "State it, as in parallel: { context: 2 } (--parallel context=2), or leave it out (--attention auto).",
    },
  );
}

/**
 * Sentences about the attention that was found, for a run that asks for rings.
 * @param ranks that divide sequences
 */
export function ringsTold(
  step: StepGraph,
  attention: Stated["attention"],
  ranks: number,
): string[] {
  if (attention !== "ring") return [];
  if (ranks === 1) return ["No keys and values go round, because no workers divide sequences."];
  const [pass] = step.tasks.filter(isPiece);
  const graph = step.graphs.get(pass?.graph ?? "");
  if (pass === undefined || graph === undefined) return [];
  const found = countRings(graph);
  const others = forwardNodes(step, pass).filter((node) => isOther(graph, node)).length;
  const left =
    others === 0
      ? []
      : [
          `${many(others, "softmax")} of the model ${others === 1 ? "is" : "are"} not of a form that goes round (docs/context.md), and ${others === 1 ? "is" : "are"} divided in the other ways.`,
        ];
  const own = `Keys and values go round in ${found === 0 ? "no attention" : many(found, "attention")}.`;
  return [own, ...left];
}

function many(count: number, what: string): string {
  return count === 1 ? `1 ${what}` : `${count} ${what === "softmax" ? "softmaxes" : `${what}s`}`;
}

/** Attention that was left as it is written: what a softmax makes of matrices is multiplied. */
function isOther(graph: Graph, { op, outputs: [output = ""] }: Node): boolean {
  if (op === "Attention") return true;
  return op === "Softmax" && typeOf(graph, output).shape.length > 2;
}

/** A rank has at least so many sections, and more if they would be longer than a block of queries. */
const SECTIONS = { least: 2, most: 8, tokens: 256 } as const;

/**
 * The sections in which sequences are cut for causal attention: each rank has a part of each section,
 * and so early and late tokens, and all have the same work. In n sections that work is (n + 1) / 2n of
 * what it would be if no key was hidden.
 */
export function ringCut(graph: Graph, { length, dim }: Sequence, ranks: number): Shard | undefined {
  const isCausal = graph.nodes.some((node) => {
    if (node.op !== RINGS[0]) return false;
    const attributes = readAttributes(operators[RINGS[0]], node.attributes, node.name);
    const isWhole = typeOf(graph, node.inputs[0] as string).shape.at(-2) === length;
    return isWhole && attributes.number("causal") === 1;
  });
  if (!isCausal) return undefined;
  const { least, most, tokens } = SECTIONS;
  const cut = (count: number) =>
    sectionedDim(
      dim,
      length,
      Array.from({ length: count }, () => 1),
      ranks,
    );
  const counts = Array.from({ length: most - least + 1 }, (_, at) => least + at);
  const possible = counts.filter((count) => cut(count) !== undefined);
  const enough = possible.find((count) => length / count / ranks <= tokens);
  return cut(enough ?? possible.at(-1) ?? 1);
}

/** Engines do not know attention in a ring: where no rank divides it, it is written out. */
export function ringsWrittenOut(graph: Graph): Graph {
  if (!graph.nodes.some(isRing)) return graph;
  const builder = builderLike(graph);
  const wayOf = (node: Node) => (isRing(node) ? writtenAs(builder, node, node.name) : undefined);
  return validateGraph(remade(graph, builder, wayOf));
}

/** For a step that was built for rings, where no workers divide sequences: after a loss, say. */
export function attentionAsWritten(): Strategy {
  return {
    name: "attention as written",
    rewrite(step) {
      const graph = step.graphs.get(GRADIENT);
      if (graph === undefined) return step;
      return { ...step, graphs: new Map(step.graphs).set(GRADIENT, ringsWrittenOut(graph)) };
    },
  };
}
