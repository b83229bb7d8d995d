/**
 * Which ranks of a change of generation have the parts of a model that ranks divide: the state of a
 * place comes from a rank that had the same place before. All ranks of the new group find the same.
 */
import type { StepProgram } from "../program/index.ts";

/** What is known of a rank of the new group, in the order of their ranks. */
interface Came {
  /** The rank in the group before; -1 for a newcomer. */
  readonly place: number;
  /** Committed steps; -1 for a newcomer. */
  readonly steps: number;
}

/** The ranks of each place; undefined where every rank has all of every tensor. */
function placesOf({ divided }: StepProgram): readonly (readonly number[])[] | undefined {
  return divided === undefined || divided.tensors.size === 0 ? undefined : divided.ranks;
}

/**
 * A rank that gets another place than before takes its state from another rank, as a newcomer does.
 * The places of the group before are those of the new one, or the state is lost.
 */
export function keepingPlaces<Rank extends Came>(plan: StepProgram, now: readonly Rank[]): Rank[] {
  const places = placesOf(plan);
  if (places === undefined) return [...now];
  const placeAt = (rank: number) => places.findIndex((ranks) => ranks.includes(rank));
  return now.map((rank, index) =>
    rank.place < 0 || rank.place % places.length === placeAt(index) ? rank : { ...rank, steps: -1 },
  );
}

/**
 * Whether parts of the state are with no rank of the new group that can give them.
 * @param now the ranks that keep their places
 */
export function isPlaceLost(
  before: StepProgram,
  plan: StepProgram,
  now: readonly Came[],
  steps: number,
): boolean {
  if (before.divided === undefined) return placesOf(plan) !== undefined;
  // What an axis of shards has is not looked up by places.
  if (isShared(before)) return true;
  if (divisionText(before) !== divisionText(plan)) return true;
  const holders = [...now.keys()].filter((index) => now[index]?.steps === steps);
  const places = placesOf(plan) ?? [];
  return places.some((ranks) => !holders.some((index) => ranks.includes(index)));
}

function isShared({ held, kept, gathered }: StepProgram): boolean {
  return held.length + kept.length + gathered.length > 0;
}

/** Whether ranks that divide the model each update all that they have of it. */
export function updatesAlone(plan: StepProgram): boolean {
  return plan.divided !== undefined && !isShared(plan) && plan.journal === undefined;
}

/** How tensors are divided, for comparison. */
function divisionText(plan: StepProgram): string {
  const places = placesOf(plan);
  const ways = [...(plan.divided?.tensors ?? [])].map(([name, { cuts }]) => [name, cuts]);
  return places === undefined ? "" : JSON.stringify([places.length, ways]);
}

/**
 * The ranks of the group before that had what a rank of the new one has; undefined where all had
 * it.
 */
export function peersBefore(before: StepProgram, plan: StepProgram): readonly number[] | undefined {
  const place = plan.divided?.place;
  return place === undefined ? undefined : placesOf(before)?.[place];
}
