/** Says in a sentence which work every worker of a divided model does. */
import type { WholeWork } from "../parallel/index.ts";

/** Less than this part of the work is not worth a sentence. */
const LEAST = 0.02;
/** More layers than this are not named. */
const MOST_LAYERS = 4;

/** @returns nothing if workers share nearly all of the work */
export function wholeWorkTold({ ranks, share, layers }: WholeWork): string[] {
  if (share < LEAST) return [];
  const named = [...layers].filter(([, part]) => part >= LEAST / 2);
  const names = named.slice(0, MOST_LAYERS).map(([name, part]) => `${name} ${percent(part)}`);
  const faster = 1 / (share + (1 - share) / ranks);
  return [
    `Each of the ${ranks} workers that divide the model computes ${percent(share)} of a micro-batch's work whole (${names.join(", ")}): no dim of it divides evenly among them, or exchanging its parts would take longer. Together they can be at most ${faster.toFixed(1)} times as fast as one.`,
  ];
}

function percent(part: number): string {
  return `${(100 * part).toFixed(part < 0.1 ? 1 : 0)}%`;
}
