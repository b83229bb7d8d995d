/** What ranks tell each other at the end of a step: each writes its numbers, and then all have the sums. */
import { ofOwner } from "./gathered.ts";
import type { Layout, LayoutGroup } from "./layout.ts";
import type { Ownership } from "./ownership.ts";
import type { CollectiveStage, ProgramBuilder, Run, RunStage } from "./program.ts";
import { copyGraph } from "./runs.ts";
import type { Combination } from "./shares.ts";
import { type Span, spanRef } from "./spans.ts";
import { treeGraph } from "./tree-graph.ts";

const CONTROL = "control";
const SUM = "control.sum";

/** Stages that sum the buffer `control` of all ranks of a node, into that of each. */
export function told(
  program: ProgramBuilder,
  layout: Layout,
  ownership: Ownership,
): (RunStage | CollectiveStage)[] {
  const count = ownership.ranks.length;
  const runs = layout.groups.map((group): Run => {
    const type = { dtype: group.dtype, shape: [group.length] };
    const graph = treeGraph(program, chain(count), { count, type, tiles: 1 });
    const inputs = ownership.ranks.map((_, owner) => [
      `part.${owner}.0`,
      ofOwner(ownership, owner, spanRef(all(group), CONTROL)),
    ]);
    const outputs = { "total.0": spanRef(all(group), SUM) };
    return { graph, inputs: Object.fromEntries(inputs) as Run["inputs"], outputs };
  });
  const back = layout.groups.map((group): Run => {
    const [from, to] = [spanRef(all(group), SUM), spanRef(all(group), CONTROL)];
    return { graph: copyGraph(program, all(group)), inputs: { from }, outputs: { to } };
  });
  return [
    barrier(ownership, "what ranks tell is there"),
    { name: "what ranks tell", runs, mode: "small" },
    barrier(ownership, "what ranks tell is read"),
    { name: "what ranks have told", runs: back, mode: "small" },
  ];
}

export function barrier({ group }: Ownership, name: string): CollectiveStage {
  return { name, mode: "collective", group, call: { kind: "barrier" } };
}

function all(group: LayoutGroup): Span {
  return { group, start: 0, end: group.length };
}

/** One after the other. */
function chain(count: number): Combination {
  return Array.from({ length: count }, (_, index) => index).reduce<Combination>(
    (sum, index) => (index === 0 ? 0 : [sum, index]),
    0,
  );
}
