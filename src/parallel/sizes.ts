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
  topology: Topology,
  { pipeline: stages, data, shard, tensor: parts, context: stretches, expert }: Sizes,
): void {
  const refuse = (what: string, hint: string): never => {
    throw new LockstepError("INVALID_OPTION", `parallel: pipeline ${stages} ${what}.`, { hint });
  };
  if (typeof again === "object") {
    refuse(
      "does not go together with a limit for recompute yet",
      'Use recompute: "blocks", which computes all blocks again.',
    );
  }
  const together = stages * parts * stretches * expert;
  const replicas = shard > 1 ? shard : data;
  const shared = zero ?? (shard > 1 ? 3 : 0);
  const sharers = shared > 1 ? replicas * together : 1;
  if (topology.nodes.some((ranks) => ranks.length % sharers !== 0)) {
    refuse(
      `shares out the gradients of a stage (zero: ${shared}) among workers of one machine`,
      "Use shard for workers of a machine, and data for machines, or zero: 1.",
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

/** @throws INVALID_OPTION for sizes that do not make up the workers of a run */
export function statedSizes(axes: Axes, size: number): Sizes {
  const sizes: Sizes = {
    data: axes.data ?? 1,
    shard: axes.shard ?? 1,
    context: axes.context ?? 1,
    expert: axes.expert ?? 1,
    tensor: axes.tensor ?? 1,
    pipeline: axes.pipeline ?? 1,
  };
  const wanted = AXES.reduce((product, axis) => product * sizes[axis], 1);
  if (wanted === size) return sizes;
  const others = AXES.filter((axis) => axis !== "data" && axis !== "shard" && sizes[axis] > 1);
  const times = ["shard" as const, ...others]
    .map((axis) => ` times ${axis} ${sizes[axis]}`)
    .join("");
  throw new LockstepError(
    "INVALID_OPTION",
    `parallel: data ${sizes.data}${times} makes ${wanted} workers, but the run has ${size}.`,
    { hint: `Start ${wanted} workers (--workers ${wanted}), or state other sizes.` },
  );
}
