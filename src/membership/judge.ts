/**
 * When a run ends: it is finished, or it would only fail again. A failure that every worker has by
 * its own error is told apart from lost workers, so that nobody starts the same run again for it.
 */
import { mostSetbacks } from "./bounds.ts";
import { breakUp, type Draft, end } from "./draft.ts";
import type { Mishap, Short, Verdict } from "./types.ts";
import { counted, workers } from "./words.ts";

/** In this many generations in a row the same error of workers' own shows that it is the run's. */
const SAME_ERROR = 3;

export function judge(draft: Draft): void {
  if (draft.state.phase === "ended") return;
  const verdict = finished(draft) ?? failedByItself(draft) ?? setBackTooOften(draft);
  if (verdict !== undefined) end(draft, verdict);
}

function finished({ state }: Draft): Verdict | undefined {
  const { done, generation } = state;
  if (done.length === 0 || done.length < generation.members.length) return undefined;
  const text = `All ${counted(done.length, "worker")} of generation ${generation.number} are done.`;
  return { outcome: "finished", requeue: false, text };
}

function failedByItself({ state, roster }: Draft): Verdict | undefined {
  const own = state.mishaps.filter(({ kind }) => kind === "own");
  const [first] = own;
  if (first === undefined) return undefined;
  const { starting, ready, member, leaving } = roster.counts;
  const isAnyoneLeft = starting + ready + member + leaving > 0;
  if (!isAnyoneLeft && own.length === state.mishaps.length) return sentence(own, "none is left");
  const same = own.filter(({ code }) => code === first.code);
  const generations = new Set(same.flatMap(({ generation }) => generation ?? []));
  const times = `${generations.size} generations in a row`;
  return generations.size < SAME_ERROR ? undefined : sentence(same, times);

  function sentence(who: readonly Mishap[], seen: string): Verdict {
    const { worker, code, text: cause } = who[0] as Mishap;
    const errors = who.length === 1 ? "an error of its own" : "errors of their own";
    const ids = who.map((mishap) => mishap.worker);
    const step = state.committed + 1;
    const text =
      `The run ends, because ${workers(ids)} failed at step ${step} by ${errors} (${seen}): ` +
      `${cause}. Do not start it again as it is: it would fail again.`;
    const error = code === undefined ? {} : { code };
    return { outcome: "failed", requeue: false, worker, ...error, text };
  }
}

function setBackTooOften({ state, options }: Draft): Verdict | undefined {
  const { setbacks, furthest, mishaps } = state;
  if (setbacks <= mostSetbacks(state, options)) return undefined;
  const last = mishaps.at(-1);
  const cause = last === undefined ? "" : ` Worker ${last.worker} was lost last: ${last.text}.`;
  const text = `The run ends, because it was set back ${setbacks} times after step ${furthest} without a newly committed step.${cause}`;
  const requeue = mishaps.length === 0 || mishaps.some(({ kind }) => kind === "lost");
  return { outcome: "failed", requeue, ...(last && { worker: last.worker }), text };
}

/** The members of a generation have no room for the state of the run, which they still hold. */
export function tooFew(draft: Draft, { workers: count, why }: Short): void {
  const { state, options } = draft;
  const most = options.stops === true ? count : options.maxWorkers;
  const known = state.least?.workers ?? 0;
  if (count + 1 > known) state.least = { workers: count + 1, why };
  if (count < most) {
    const text = `Generation ${state.generation.number} cannot go on, because its members are too few. ${why}`;
    return breakUp(draft, text);
  }
  const wish = options.stops === true ? "it is to stop, and " : "";
  const held = `${counted(count, "worker")} cannot hold its state`;
  const saved =
    state.saved === 0
      ? "It has no checkpoint."
      : `Its last checkpoint is that of step ${state.saved}.`;
  const text =
    `The run ends after step ${state.committed}, because ${wish}${held}. ${why} ${saved} ` +
    "Continue it with more workers, or with more memory for each.";
  end(draft, { outcome: "failed", requeue: false, text });
}
