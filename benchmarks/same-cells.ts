/** Compares a way to train a model with one process, and that with changes that do no harm. */
import { LockstepError } from "../src/errors.ts";
import type { ComparedModel } from "./same-models.ts";
import { trainedByProcesses } from "./same-processes.ts";
import {
  gradientDifference,
  lossDifference,
  moved,
  type Trained,
  type TrainedOptions,
  trained,
} from "./same-runs.ts";
import { MICRO_BATCHES, nameOf, rootOf, type Way } from "./same-ways.ts";

/** How far a way is from one process: the largest relative differences. */
export interface Apart {
  readonly losses: number;
  /** Of gradients at the first weights, and at those that one process ends with. */
  readonly first: number;
  readonly later: number;
  /** The parameter whose gradient differs most. */
  readonly parameter: string;
}

/** What was found of a model and a way. It is printed as JSON. */
export type Cell =
  | {
      readonly kind: "ran";
      readonly apart: Apart;
      /** The way whose bits it should have at the end. */
      readonly root: string;
      /** The tensors, and `losses`, whose bits differ from those of the root. */
      readonly others: readonly string[];
      /** Whether the axis `tensor` finds the model too small, so that all ranks compute all of it. */
      readonly isWhole: boolean;
      /** What is wrong with the same way by real processes; undefined if nothing is, or none ran. */
      readonly processes?: string | undefined;
    }
  | { readonly kind: "refused" | "failed"; readonly sentence: string };

const ONE_PROCESS = nameOf({});

/** What a model is compared by. Runs that several cells need are made once. */
export class Comparison {
  readonly #model: ComparedModel;
  readonly #options: TrainedOptions;
  readonly #runs = new Map<string, Promise<Trained>>();

  constructor(model: ComparedModel, options: TrainedOptions) {
    this.#model = model;
    this.#options = options;
  }

  /** One way against one process of as many micro-batches. */
  async cell(way: Way): Promise<Cell> {
    const root = rootOf(way);
    try {
      const own = await this.#run(way);
      const others = otherTensors(own, await this.#run(root));
      return {
        kind: "ran",
        apart: apartOf(own, await this.#alone(way)),
        root: root.parallel === undefined ? ONE_PROCESS : nameOf(root),
        others,
        isWhole: (way.parallel?.tensor ?? 1) > 1 && own.divided === 0,
        processes: await this.#byProcesses(way, own),
      };
    } catch (error) {
      const isRefused = error instanceof LockstepError && error.code === "INVALID_OPTION";
      const sentence = error instanceof Error ? error.message : String(error);
      return { kind: isRefused ? "refused" : "failed", sentence };
    }
  }

  /**
   * How far one process is from itself after changes that do no harm: each first weight moved by its
   * last bit, and twice as many micro-batches where the objective does not depend on them.
   */
  async innocent(): Promise<Apart> {
    const alone = await this.#alone({});
    const others = { weights: moved(alone.last), from: moved(alone.start) };
    const all = [apartOf(await this.#make({}, others), alone)];
    if (this.#model.hasGhosts !== true) {
      const finer = { microBatches: 2 * MICRO_BATCHES };
      all.push(apartOf(await this.#make(finer, { weights: alone.last }), alone));
    }
    return all.reduce((most, own) => ({
      losses: Math.max(most.losses, own.losses),
      first: Math.max(most.first, own.first),
      later: Math.max(most.later, own.later),
      parameter: own.first > most.first ? own.parameter : most.parameter,
    }));
  }

  async #byProcesses(way: Way, own: Trained): Promise<string | undefined> {
    const { name: model, inProcesses } = this.#model;
    if (inProcesses !== true || way.inProcesses !== true) return undefined;
    const { steps } = this.#options;
    const ranks = await trainedByProcesses({ model, way, steps });
    const wrong = ranks.find(({ losses }) => losses.join() !== own.losses.join());
    if (wrong !== undefined) return "real processes have other losses";
    const names = Object.keys(own.bits).filter((name) => ranks[0]?.bits[name] !== own.bits[name]);
    return names.length === 0 ? undefined : `real processes have other bits of ${names.join(", ")}`;
  }

  #alone(way: Way): Promise<Trained> {
    return this.#run(aloneOf(way));
  }

  #run(way: Way): Promise<Trained> {
    const name = nameOf(way);
    const found = this.#runs.get(name) ?? this.#made(way, name);
    this.#runs.set(name, found);
    return found;
  }

  async #made(way: Way, name: string): Promise<Trained> {
    // Later gradients are those at the weights of one process.
    const alone = name === nameOf(aloneOf(way)) ? undefined : await this.#alone(way);
    return this.#make(way, { weights: alone?.last, step: alone?.step });
  }

  #make(way: Way, more: Partial<TrainedOptions>): Promise<Trained> {
    return trained(this.#model, way, { ...this.#options, ...more });
  }
}

/** One process of as many micro-batches. */
function aloneOf({ microBatches }: Way): Way {
  return microBatches === undefined ? {} : { microBatches };
}

function apartOf(own: Trained, wanted: Trained): Apart {
  const first = gradientDifference(own.first, wanted.first);
  const later = gradientDifference(own.later, wanted.later);
  return {
    losses: lossDifference(own.losses, wanted.losses),
    first: first.worst,
    later: later.worst,
    parameter: first.worst > later.worst ? first.name : later.name,
  };
}

/** The tensors, and `losses`, that do not have the same bits. */
function otherTensors(own: Trained, wanted: Trained): string[] {
  const names = Object.keys(wanted.bits).filter((name) => own.bits[name] !== wanted.bits[name]);
  return own.losses.join() === wanted.losses.join() ? names : ["losses", ...names];
}

/** The largest differences that are asked for, where bits are not. */
export const GOAL = { losses: 1e-4, gradients: 1e-5 };

/** What a cell is, against what is asked for. */
export interface Verdict {
  /** `bits`: those of one process; `near`: within the goal; `whole`: nothing was divided. */
  readonly is: "bits" | "near" | "whole" | "refused" | "rounding" | "wrong";
  /** Why it is not what is asked for. */
  readonly why?: string;
}

/**
 * Axes that leave the order of additions as it is are asked for the bits of one process, or of the
 * way without them. A difference above the goal is `rounding` where innocent changes move the model
 * as far.
 */
export function judge(cell: Cell, innocent: Apart): Verdict {
  if (cell.kind !== "ran") {
    return { is: cell.kind === "refused" ? "refused" : "wrong", why: cell.sentence };
  }
  const { apart, root, others, isWhole, processes } = cell;
  if (processes !== undefined) return { is: "wrong", why: processes };
  if (others.length > 0) {
    const some = others.slice(0, 3).join(", ");
    return { is: "wrong", why: `not the bits of ${root}: ${others.length} (${some} …)` };
  }
  if (isWhole) return { is: "whole", why: "the model is too small to be divided" };
  if (root === ONE_PROCESS) return { is: "bits" };
  const gradients = Math.max(apart.first, apart.later);
  if (apart.losses <= GOAL.losses && gradients <= GOAL.gradients) return { is: "near" };
  const { losses } = innocent;
  const most = Math.max(innocent.first, innocent.later);
  const isRounding =
    apart.losses <= Math.max(GOAL.losses, 2 * losses) &&
    gradients <= Math.max(GOAL.gradients, 2 * most);
  const found = `losses ${short(apart.losses)}, gradients ${short(gradients)} (${apart.parameter})`;
  return {
    is: isRounding ? "rounding" : "wrong",
    why: `${found}; innocent changes: ${short(losses)}, ${short(most)}`,
  };
}

export function short(value: number): string {
  return value === 0 ? "0" : value.toExponential(0);
}
