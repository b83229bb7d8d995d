/** What the event of a run's start tells of its workers. */
import type { NetworkFacts } from "../telemetry/index.ts";
import type { Ranks, Trainer } from "../train/index.ts";

/** How workers share a step; nothing for one worker that computes a step as it is. */
export function sharingTold(
  { planned: { parallel } }: Trainer,
  ranks?: Ranks,
): { readonly sharing?: string } {
  const isPlain = ranks === undefined && parallel.strategies.length === 0;
  return isPlain ? {} : { sharing: parallel.reason };
}

/** Nothing for a run on one node. */
export function networkOf(
  { group }: Ranks,
  { plan }: Trainer,
): { readonly network?: NetworkFacts } {
  const machines = group.transport.nodes.length;
  if (machines === 1) return {};
  const { messageUs, wireUsPerByte } = group.costs;
  const { buckets } = plan;
  return { network: { machines, messageUs, bytesPerSecond: 1e6 / wireUsPerByte, buckets } };
}
