/**
 * What a rank makes before it meets the others, so that they do not wait for it: the step of one
 * process, and the graphs that it will most likely run.
 */
import { DEFAULT_COSTS } from "../collectives/index.ts";
import { LockstepError } from "../errors.ts";
import { compileAll } from "../execute/index.ts";
import { axesFor, checkWorkers, statedWorkers } from "../parallel/index.ts";
import type { StepGraph } from "../plan/index.ts";
import { type PlanOptions, planOf, stepOf } from "./planned.ts";

export interface PrepareOptions extends Omit<PlanOptions, "ranks"> {
  /** Whether other ranks are on other nodes. */
  readonly isApart: boolean;
}

export interface Prepared {
  readonly step: StepGraph;
  /** Lets go of the graphs. Those that a trainer uses by then stay. */
  close(): void;
}

/**
 * The other ranks are not known yet, so the graphs are those of a rank among two. Where those are
 * not the ones that it needs, they are compiled once it has met the others.
 */
export async function prepare({ isApart, ...options }: PrepareOptions): Promise<Prepared> {
  const step = stepOf(options);
  const size = Math.max(2, statedWorkers(options.parallel));
  const all = Array.from({ length: size }, (_, rank) => rank);
  const half = Math.floor(size / 2);
  const nodes = isApart ? [all.slice(0, half), all.slice(half)] : [all];
  const group = { rank: size - 1, size, costs: DEFAULT_COSTS, transport: { nodes } };
  const parallel = axesFor(options.parallel, group.size);
  try {
    // How so many would divide the model is not looked for: that takes seconds.
    checkWorkers(size, options.microBatches ?? 1, parallel);
    const { plan } = planOf({ ...options, parallel, ranks: { group } }, step);
    const compiled = await compileAll(options.engine, plan.graphs);
    return {
      step,
      close: () => {
        for (const executable of compiled.values()) executable.close();
      },
    };
  } catch (error) {
    // A step that two ranks cannot share so has its errors told when the ranks are known.
    if (!(error instanceof LockstepError)) throw error;
    return { step, close: () => undefined };
  }
}
