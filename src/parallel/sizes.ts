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

/** @throws INVALID_OPTION for what does not go together with a model that workers divide */
export function checkDivided(
  topology: Topology,
  { tensor: parts, context: stretches, expert }: Sizes,
): void {
  const of = parts * stretches * expert;
  const named = [
    ...(parts > 1 ? [`tensor ${parts}`] : []),
    ...(stretches > 1 ? [`context ${stretches}`] : []),
    ...(expert > 1 ? [`expert ${expert}`] : []),
  ].join(", ");
  const refuse = (what: string, hint: string): never => {
    throw new LockstepError("INVALID_OPTION", `parallel: ${named} ${what}.`, { hint });
  };
  if (topology.nodes.some((ranks) => ranks.length % of !== 0)) {
    refuse(
      "needs workers of one machine for each micro-batch",
      `Start a multiple of ${of} workers on each machine.`,
    );
  }
}

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
  const of = parts * stretches * expert;
  const together = stages * of;
  if (topology.nodes.some((ranks) => ranks.length % together !== 0)) {
    refuse(
      `${of > 1 ? `with ${of} workers for each stage ` : ""}needs workers of one machine for all stages`,
      `Start a multiple of ${together} workers on each machine.`,
    );
  }
  const replicas = shard > 1 ? shard : data;
  const shared = zero ?? (shard > 1 ? 3 : 0);
  const sharers = shared > 0 ? replicas * together : 1;
  if (topology.nodes.some((ranks) => ranks.length % sharers !== 0)) {
    refuse(
      `shares out the state of a stage (zero: ${shared}) among workers of one machine`,
      "Use shard for workers of a machine, and data for machines, or data alone without zero.",
    );
  }
}
