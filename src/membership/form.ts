/** Forms a generation out of the workers that are ready. */
import { begin, candidates, type Draft, withStatus } from "./draft.ts";
import type { WorkerState } from "./types.ts";
import { generationText } from "./words.ts";

/** Members of the last generation that may enter the next one, by rank. */
export function survivors({ state, byId }: Draft): readonly WorkerState[] {
  return state.generation.members
    .map(({ worker }) => byId.get(worker))
    .filter((worker) => worker?.status === "ready") as WorkerState[];
}

/**
 * Survivors come first, in the order of their ranks, then others by number; at most `maxWorkers`.
 * The state is the furthest that a living worker holds.
 */
export function form(draft: Draft): void {
  const { state, options } = draft;
  const old = survivors(draft);
  const all = [...old, ...candidates(draft).filter((worker) => !old.includes(worker))];
  const chosen = byNode(all.slice(0, options.maxWorkers));
  const living = [...all, ...withStatus(draft, "leaving")];
  const step = Math.max(...living.map((worker) => worker.step));
  const holders = living.filter((worker) => worker.step === step).map(({ id }) => id);
  const members = chosen.map(({ id, node, step: own }) => ({ worker: id, node, step: own }));
  state.generation = { number: state.generation.number + 1, members, step, holders };
  begin(draft, chosen, generationText(state.generation, state));
}

/** Brings the workers of each node together, in the order in which nodes first appear. */
function byNode(all: readonly WorkerState[]): WorkerState[] {
  const nodes = [...new Set(all.map(({ node }) => node))];
  return nodes.flatMap((name) => all.filter(({ node }) => node === name));
}
