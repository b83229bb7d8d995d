/** The stages of a pipeline as a file gives them, for all nodes of a forward pass. */
import { LockstepError } from "../errors.ts";
import type { Node } from "../graph/index.ts";

export interface GivenStages {
  /** Who says it, for messages. */
  readonly by: string;
  /** The stage of the nodes that make these values. */
  readonly stageOf: Readonly<Record<string, number>>;
}

/**
 * The forward nodes of each stage. A node of which nothing is said is in the stage of the last thing
 * that it reads; if it reads nothing that a node makes, in that of its first reader.
 * @param forward in the order of the graph
 * @throws INVALID_OPTION for a node that reads what a later stage makes
 */
export function givenStages(
  forward: readonly Node[],
  count: number,
  { by, stageOf }: GivenStages,
): Node[][] {
  const stages = new Map<Node, number>();
  const makers = new Map<string, Node>();
  const makersOf = ({ inputs }: Node) => inputs.flatMap((name) => makers.get(name) ?? []);
  for (const node of forward) {
    const [own] = node.outputs.flatMap((name) => saidOf(name, stageOf) ?? []);
    for (const name of node.outputs) if (name !== "") makers.set(name, node);
    const before = makersOf(node).flatMap((maker) => stages.get(maker) ?? []);
    const least = before.length === 0 ? undefined : Math.max(...before);
    if (own !== undefined && least !== undefined && own < least) {
      throw backwards(node, own, least, by);
    }
    const stage = own ?? least;
    if (stage !== undefined) stages.set(node, stage);
  }
  const first = new Map<Node, number>();
  for (const node of forward.toReversed()) {
    const stage = stages.get(node) ?? first.get(node) ?? 0;
    stages.set(node, stage);
    for (const maker of makersOf(node)) {
      first.set(maker, Math.min(stage, first.get(maker) ?? stage));
    }
  }
  return Array.from({ length: count }, (_, stage) =>
    forward.filter((node) => stages.get(node) === stage),
  );
}

/**
 * What is said of the node that makes a value. Where an engine's form of the pass makes a value in
 * another form, it is named after the value: what was `h/Add_1` is `h/Add_1/regrouped`.
 */
function saidOf(name: string, stageOf: Readonly<Record<string, number>>): number | undefined {
  for (let end = name.length; end > 0; end = name.lastIndexOf("/", end - 1)) {
    const origin = name.slice(0, end);
    if (Object.hasOwn(stageOf, origin)) return stageOf[origin];
  }
  return undefined;
}

function backwards({ name }: Node, own: number, least: number, by: string): LockstepError {
  return new LockstepError(
    "INVALID_OPTION",
    `${by} puts the node "${name}" in pipeline stage ${own} (counted from 0), but it reads what stage ${least} makes.`,
    {
      hint: "A node can read what its own stage or an earlier one makes: correct its pipeline_stage.",
    },
  );
}
