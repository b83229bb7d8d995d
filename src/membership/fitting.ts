/** Which of several workers can take part in a generation together. */
import type { MembershipOptions, WorkerState } from "./types.ts";

type Fit = Pick<MembershipOptions, "maxWorkers" | "together" | "within" | "stops">;

/** How many workers share each micro-batch. A run that is to stop takes those that are left. */
export function togetherIn({ together = 1, stops = false }: Fit): number {
  return stops ? 1 : together;
}

/** How many of them are of one node. */
export function withinNode(fit: Fit): number {
  const together = togetherIn(fit);
  return Math.min(together, fit.within ?? together);
}

/** Says in a sentence which numbers of workers fit. */
export function togetherText(fit: Fit): string {
  const [together, within] = [togetherIn(fit), withinNode(fit)];
  const ofMachine = within > 1 ? ` (of a machine always ${within} together)` : "";
  return together > within ? ` or a multiple of ${together}${ofMachine}` : ofMachine;
}

/**
 * Workers that divide the model take part together or not at all. Whoever comes first in the list
 * comes first here.
 */
export function fitting(all: readonly WorkerState[], options: Fit): WorkerState[] {
  const together = togetherIn(options);
  const within = withinNode(options);
  const whole = (count: number) => count - (count % together);
  const most = whole(options.maxWorkers);
  if (together === 1) return all.slice(0, most);
  const open = new Map<string, WorkerState[]>();
  const chosen: WorkerState[] = [];
  for (const worker of all) {
    const group = [...(open.get(worker.node) ?? []), worker];
    const isWhole = group.length === within;
    open.set(worker.node, isWhole ? [] : group);
    if (isWhole) chosen.push(...group);
  }
  return chosen.slice(0, Math.min(most, whole(chosen.length)));
}
