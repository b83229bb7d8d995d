/** Forms a generation out of the workers that are ready. */
import { begin, candidates, type Draft, find, withStatus } from "./draft.ts";
import type { WorkerState } from "./types.ts";
import { generationText } from "./words.ts";

/** Members of the last generation that may enter the next one, by rank. */
export function survivors(draft: Draft): readonly WorkerState[] {
  const { roster, state } = draft;
  return state.generation.members.flatMap(({ worker }) =>
    roster.ready.has(worker) ? (find(draft, worker) ?? []) : [],
  );
}

/**
 * Survivors come first, in the order of their ranks, then others by number; at most `maxWorkers`.
 * The state is the furthest that a living worker holds.
 */
export function form(draft: Draft): void {
  const { state, options } = draft;
  const old = survivors(draft);
  const isOld = new Set(old);
  const all = [...old, ...candidates(draft).filter((worker) => !isOld.has(worker))];
  const chosen = byNode(all.slice(0, options.maxWorkers));
  const living = [...all, ...withStatus(draft, "leaving")];
  const held = living.reduce((most, worker) => Math.max(most, worker.step), 0);
  // Workers that are new hold nothing.
  const step = held === 0 ? state.saved : held;
  const holders = living.filter((worker) => held > 0 && worker.step === held).map(({ id }) => id);
  const members = chosen.map(({ id, node, step: own }) => ({ worker: id, node, step: own }));
  state.generation = { number: state.generation.number + 1, members, step, holders };
  begin(draft, chosen, generationText(state.generation, state));
}

/** Brings the workers of each node together, in the order in which nodes first appear. */
function byNode(all: readonly WorkerState[]): WorkerState[] {
  const nodes = new Map<string, WorkerState[]>();
  for (const worker of all) {
    const own = nodes.get(worker.node);
    if (own === undefined) nodes.set(worker.node, [worker]);
    else own.push(worker);
  }
  return [...nodes.values()].flat();
}
