/** Which of several workers can take part in a generation together. */
import type { MembershipOptions, WorkerState } from "./types.ts";

type Fit = Pick<MembershipOptions, "maxWorkers" | "together" | "stops">;

/** How many workers of one node share each micro-batch. A run that is to stop takes those that are left. */
export function togetherIn({ together = 1, stops = false }: Fit): number {
  return stops ? 1 : together;
}

/**
 * Workers of a node that divide the model take part together or not at all. Whoever comes first in
 * the list comes first here.
 */
export function fitting(all: readonly WorkerState[], options: Fit): WorkerState[] {
  const together = togetherIn(options);
  const most = options.maxWorkers - (options.maxWorkers % together);
  if (together === 1) return all.slice(0, most);
  const open = new Map<string, WorkerState[]>();
  const chosen: WorkerState[] = [];
  for (const worker of all) {
    const group = [...(open.get(worker.node) ?? []), worker];
    const isWhole = group.length === together;
    open.set(worker.node, isWhole ? [] : group);
    if (isWhole) chosen.push(...group);
  }
  return chosen.slice(0, most);
}
