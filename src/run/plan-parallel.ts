/** How workers share a step, and which other ways there are, as text for a plan. */
import { formatMesh } from "../mesh/index.ts";
import type { Parallel, Prediction } from "../parallel/index.ts";
import { columns, size, time } from "./columns.ts";

export function parallelLines({ mesh, strategies, reason }: Parallel): string[] {
  const names = strategies.map(({ name }) => name);
  if (names.length === 0) return [reason];
  const on = mesh.size === 1 ? "" : `mesh ${formatMesh(mesh)}; `;
  return [reason, `${on}strategies: ${names.join(", ")}`];
}

/** What the choice was made from. */
export function predictionLines({ predicted }: Parallel): string[] {
  const ways = predicted?.() ?? [];
  if (ways.length < 2) return [];
  const others = ways.filter(({ isChosen, fits }) => fits && !isChosen);
  const [next] = others.toSorted((a, b) => a.cost.seconds - b.cost.seconds);
  const rows = listedOf(ways, next).map((way) => {
    const { name, need, cost, isChosen, fits } = way;
    const word = isChosen ? " (chosen)" : way === next ? " (next)" : fits ? "" : " (too large)";
    return [
      `  ${name}`,
      size(need),
      `${size(cost.sent + cost.read)} of traffic, ${time(cost.exposed)} exposed, a step in ${time(cost.seconds)}${word}`,
    ];
  });
  return [
    "ways to share a step, as predicted: memory of a worker with its process",
    ...columns(rows),
    ...(rows.length < ways.length
      ? [`  and ${ways.length - rows.length} others, which are slower or too large`]
      : []),
    "",
  ];
}

/** The most ways that are listed. */
const MOST_LISTED = 24;

/** Of many ways the fastest that fit, and then those that lack the least memory. */
function listedOf(ways: readonly Prediction[], next: Prediction | undefined): Prediction[] {
  const rankOf = (way: Prediction) => (way.isChosen ? 0 : way === next ? 1 : way.fits ? 2 : 3);
  const sizeOf = ({ fits, cost, need }: Prediction) => (fits ? cost.seconds : need);
  const best = ways
    .toSorted((a, b) => rankOf(a) - rankOf(b) || sizeOf(a) - sizeOf(b))
    .slice(0, MOST_LISTED);
  return ways.filter((way) => best.includes(way));
}
