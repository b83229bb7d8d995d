/** The sizes of the axes of a run, and which of them do not go together. */
import { LockstepError } from "../errors.ts";
import { PIPELINE, type Topology } from "../mesh/index.ts";
import type { Recompute } from "./recompute.ts";
import type { Axes } from "./workers.ts";

/** What a run states beside the sizes. */
interface Stated {
  readonly parallel?: Axes | undefined;
  readonly zero?: 1 | 2 | 3 | undefined;
  readonly recompute?: Recompute | undefined;
}

/** In the order of a mesh. */
export const AXES = ["data", "shard", "context", "expert", "tensor", PIPELINE] as const;
export type Sizes = Readonly<Record<(typeof AXES)[number], number>>;

/** @throws INVALID_OPTION for what does not go together with a pipeline */
export function checkPipeline(
  { zero, recompute: again }: Stated,
  { pipeline: stages, shard }: Sizes,
): void {
  const refuse = (what: string, hint: string): never => {
    throw new LockstepError("INVALID_OPTION", `parallel: pipeline ${stages} ${what}.`, { hint });
  };
  if ((zero ?? (shard > 1 ? 3 : 1)) > 1) {
    refuse(
      "does not go together with ZeRO 2 and 3",
      "Use zero: 1, or data instead of shard: each worker holds its stage only, parameters and gradients too.",
    );
  }
  if (typeof again === "object") {
    refuse(
      "does not go together with a limit for recompute yet",
      'Use recompute: "blocks", which computes all blocks again.',
    );
  }
}

/**
 * The axes in the order of a mesh. Ranks that divide a model are neighbours: they exchange the most.
 * Where the stages of a pipeline lie on several machines, the ranks of one stage are neighbours.
 */
export function orderOf(topology: Topology, sizes: Sizes): readonly (keyof Sizes)[] {
  const { pipeline, context, expert, tensor } = sizes;
  const together = pipeline * context * expert * tensor;
  const isWithin = topology.nodes.every((ranks) => ranks.length % together === 0);
  return isWithin ? AXES : ["data", "shard", PIPELINE, "context", "expert", "tensor"];
}
