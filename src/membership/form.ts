/** Forms a generation out of the workers that are ready. */
import { begin, candidates, type Draft, find, withStatus } from "./draft.ts";
import { fitting, togetherIn } from "./fitting.ts";
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
 * Survivors come first, in the order of their ranks, then others by number, as far as they fit.
 * The state is the furthest that one of them holds.
 */
export function form(draft: Draft): void {
  const { state, options } = draft;
  const old = byPlace(draft, survivors(draft));
  const isOld = new Set(old);
  const ready = [...old, ...candidates(draft).filter((worker) => !isOld.has(worker))];
  const all = [...heldByLeaving(draft, ready), ...ready];
  const chosen = byNode(fitting(all, options));
  const held = furthest(chosen);
  // Workers that are new hold nothing.
  const step = held === 0 ? state.saved : held;
  const holders = chosen.filter((worker) => held > 0 && worker.step === held).map(({ id }) => id);
  const members = chosen.map(({ id, node, step: own }) => ({ worker: id, node, step: own }));
  state.generation = { number: state.generation.number + 1, members, step, holders };
  begin(draft, chosen, generationText(state.generation, state));
}

/**
 * Those that divide the model hold different parts of it: a rank's place among them is its remainder.
 * The first of each place come first, so that a smaller generation still has all parts, and in the
 * order of places, so that ranks keep theirs. Before them come those that hold the state: the first
 * rank does.
 */
function byPlace(draft: Draft, old: readonly WorkerState[]): readonly WorkerState[] {
  const together = togetherIn(draft.options);
  if (together === 1) return old;
  const { members } = draft.state.generation;
  const ranks = new Map(members.map(({ worker }, rank) => [worker, rank]));
  const held = furthest(old);
  const behind = ({ step }: WorkerState) => (step === held ? 0 : 1);
  const seen = new Map<number, number>();
  const turns = old
    .toSorted((a, b) => behind(a) - behind(b))
    .map((worker) => {
      const place = (ranks.get(worker.id) as number) % together;
      const turn = seen.get(place) ?? 0;
      seen.set(place, turn + 1);
      return { worker, turn, behind: behind(worker), place };
    });
  return turns
    .sort((a, b) => a.turn - b.turn || a.behind - b.behind || a.place - b.place)
    .map(({ worker }) => worker);
}

/**
 * Workers that are about to leave take part once more if only they hold the state: they bring it to
 * the others, and leave after the next step. One of the others has to have room.
 */
function heldByLeaving(draft: Draft, ready: readonly WorkerState[]): readonly WorkerState[] {
  const leaving = withStatus(draft, "leaving");
  const held = furthest(leaving);
  if (held <= furthest(ready)) return [];
  return leaving.filter(({ step }) => step === held).slice(0, draft.options.maxWorkers - 1);
}

function furthest(workers: readonly WorkerState[]): number {
  return workers.reduce((most, { step }) => Math.max(most, step), 0);
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
