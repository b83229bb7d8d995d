/**
 * Searches the ways in which workers divide a model, along all axes that go together: the fastest
 * that fits the memory of a worker, and of nearly equal ones the simplest. Ways are priced one by
 * one, and only those that could win: to divide matrices takes seconds of planning.
 */
import { LockstepError } from "../errors.ts";
import type { Graph } from "../graph/index.ts";
import { createMesh } from "../mesh/index.ts";
import type { Optimizer } from "../optimizer/index.ts";
import {
  bytesOf,
  isPiece,
  PROCESS_BYTES,
  type ScheduleName,
  type StepFacts,
  type StepGraph,
  valueOf,
} from "../plan/index.ts";
import { sharings } from "./by-cost.ts";
import { type Machine, type Sharing, sizesOf } from "./cost.ts";
import { dividedCost, isWithinNode, linkOfParts, machineOfPart } from "./divided-cost.ts";
import type { DividedStep } from "./divided-part.ts";
import { divideStep } from "./divided-step.ts";
import { expertsOf } from "./experts-of.ts";
import { valueOfInput } from "./placed.ts";
import { secondsOfWork } from "./roofline.ts";
import type { Strategy } from "./strategy.ts";
import { MARGIN, type ModelAxes, NEARLY, needOf, type Priced } from "./ways.ts";

export interface DividedOptions {
  /** Of one process, before any strategy. */
  readonly step: StepGraph;
  readonly facts: StepFacts;
  readonly optimizer: Optimizer;
  readonly machine: Machine;
  /** Whether the user has said what is computed again. */
  readonly isRecomputeStated: boolean;
  /** Whether the user has said which timetable a pipeline has. */
  readonly isTimetableStated: boolean;
  /**
   * The strategies that divide the model in a way.
   * @throws INVALID_OPTION for a way whose parts do not go together
   */
  readonly strategiesOf: (way: DividedWay) => readonly Strategy[];
}

export interface DividedWay {
  readonly axes: ModelAxes;
  readonly sharing: Sharing;
  /** Whether blocks are computed again, where the user has not said it. */
  readonly again: boolean;
  /** Of a pipeline, where the user has not said it. Undefined: the default. */
  readonly timetable?: ScheduleName | undefined;
}

/**
 * How many nodes of passes are divided before a search is content with what it has found: to divide
 * one takes about a millisecond.
 */
const MOST_NODES = 6_000;

/** Timetables with several stages a rank, that wait less than the default, and take more memory. */
const SEVERAL = ["interleaved", "zb-v"] as const;

interface ExpertFacts {
  readonly counts: readonly number[];
  readonly share: number;
}

export class DividedWays {
  readonly #options: DividedOptions;
  readonly #steps = new Map<string, DividedStep | undefined>();
  readonly #priced = new Map<string, Priced>();
  #seconds: number | undefined;
  #ofExperts: ExpertFacts | undefined;
  /** Of the passes that were divided. */
  #nodes = 0;
  /** What workers exchange for a micro-batch, of the ways that were looked at. */
  readonly #exchanged: { readonly axes: ModelAxes; readonly seconds: number }[] = [];

  constructor(options: DividedOptions) {
    this.#options = options;
  }

  /** What was priced so far, in the order in which it was. */
  get priced(): readonly Priced[] {
    return [...this.#priced.values()];
  }

  /**
   * Goes from the simplest to the most complex, and takes one in place of another if it is clearly
   * faster, or if nothing simpler fits.
   * @param below a way that takes so many seconds or more is not looked at
   */
  find(below: number): Priced | undefined {
    const { memory } = this.#options.machine;
    let found: Priced | undefined;
    const fitting = new Set<string>();
    for (const way of this.all()) {
      const limit = found === undefined ? below : Math.min(below, found.cost.seconds / NEARLY);
      const least = this.leastOf(way);
      if (least.seconds >= limit || least.bytes > memory) continue;
      if (found !== undefined && this.#isLong(way)) continue;
      // What fits is not computed again.
      if (way.again && fitting.has(textOf({ ...way, again: false }))) continue;
      const priced = this.price(way);
      if (priced === undefined || priced.need > memory) continue;
      fitting.add(textOf(way));
      if (priced.cost.seconds < limit) found = priced;
    }
    return found;
  }

  /** Whether to look at a way as well would take long. */
  #isLong({ axes, again, timetable }: DividedWay): boolean {
    const isKnown = this.#steps.has(JSON.stringify([axes, again, timetable]));
    return isSolved(axes) && !isKnown && this.#nodes >= MOST_NODES;
  }

  /**
   * All ways of which micro-batches and workers let one think, the simplest first. Stages may lie on
   * several machines; what divides matrices and sequences exchanges too much for that.
   */
  all(): DividedWay[] {
    const { machine, facts, isRecomputeStated, isTimetableStated } = this.#options;
    const { nodes, each } = sizesOf(machine);
    const experts = this.#experts().counts;
    const near = modelAxesOf(nodes * each, facts.microBatches, experts).filter((axes) =>
      isWithinNode(partsOf({ ...axes, pipeline: 1 }), machine),
    );
    const plain = near.flatMap((axes) => {
      const own = machineOfPart(partsOf(axes), machine);
      const several = axes.pipeline > 1 && !isTimetableStated ? SEVERAL : [];
      return sharings(facts, own).flatMap((sharing) =>
        [undefined, ...several].map((timetable) => ({ axes, sharing, again: false, timetable })),
      );
    });
    if (isRecomputeStated) return plain;
    // With zb-v, what is computed again would be kept.
    const again = plain.filter(({ timetable }) => timetable !== "zb-v");
    return [...plain, ...again.map((way) => ({ ...way, again: true }))];
  }

  /** What a way takes at least, without looking at the graph. */
  leastOf({ axes, sharing, again }: DividedWay): {
    readonly seconds: number;
    readonly bytes: number;
  } {
    const { facts, machine } = this.#options;
    const { data, shard, zero } = sharing;
    const own = Math.ceil(facts.microBatches / (data * shard));
    const computing = this.#computing() / partsOf(axes);
    const seconds = own * (computing + this.#leastExchanged(axes));
    const isAway = machine.isOffloaded === true;
    const part = (least: number) => (zero >= least ? 1 / shard : 1);
    const held =
      (isAway ? 0 : facts.parameters * part(3) + facts.slots * part(1)) + facts.gradients * part(2);
    const ofExperts = this.#experts().share;
    const divided = (1 - ofExperts + ofExperts / axes.expert) / (axes.tensor * axes.pipeline);
    const bytes = held * divided * MARGIN + PROCESS_BYTES;
    // Some of a step is computed again, however little.
    return { seconds: again ? seconds * (1 + Number.EPSILON) : seconds, bytes };
  }

  /** The seconds of a micro-batch on one worker. */
  #computing(): number {
    this.#seconds ??= secondsOfWork(this.#options.facts.work, this.#options.machine);
    return this.#seconds;
  }

  /** The numbers of experts that mixtures have, and the part of the parameters that these are. */
  #experts(): ExpertFacts {
    this.#ofExperts ??= expertsIn(this.#options.step);
    return this.#ofExperts;
  }

  /**
   * Workers that divide a model further exchange less in that proportion, at the most: what each
   * takes of a sum does not become less, and what it takes of values that are rearranged does.
   */
  #leastExchanged(axes: ModelAxes): number {
    return Math.max(
      0,
      ...this.#exchanged.map(({ axes: known, seconds }) => {
        const isFurther =
          axes.context % known.context === 0 &&
          axes.expert % known.expert === 0 &&
          axes.tensor % known.tensor === 0 &&
          axes.pipeline % known.pipeline === 0;
        return isFurther ? (seconds * partsOf(known)) / partsOf(axes) : 0;
      }),
    );
  }

  /** @returns undefined if the step cannot be divided so */
  price(way: DividedWay): Priced | undefined {
    const key = textOf(way);
    const known = this.#priced.get(key);
    if (known !== undefined) return known;
    const { axes, sharing, again, timetable } = way;
    const parts = partsOf(axes);
    const divided = this.#divided(way);
    if (divided === undefined) return undefined;
    const cost = dividedCost(divided, sharing, parts, this.#options.machine);
    const priced: Priced = {
      sharing,
      axes,
      timetable,
      recompute: again ? "blocks" : undefined,
      offload: undefined,
      buddies: undefined,
      cost,
      need: needOf(cost.memory),
    };
    this.#priced.set(key, priced);
    return priced;
  }

  #divided(way: DividedWay): DividedStep | undefined {
    const { step, optimizer, machine, strategiesOf } = this.#options;
    const { axes, again, timetable } = way;
    try {
      // What does not go together depends on what is shared, and how a model is divided does not.
      const strategies = strategiesOf(way);
      const key = JSON.stringify([axes, again, timetable]);
      if (this.#steps.has(key)) return this.#steps.get(key);
      this.#steps.set(key, undefined);
      const [pass] = step.tasks.filter(isPiece);
      const nodes = step.graphs.get(pass?.graph ?? "")?.nodes.length ?? 0;
      this.#nodes += isSolved(axes) ? nodes : 0;
      const mesh = createMesh({ ...axes });
      const links = {
        parts: linkOfParts(partsOf({ ...axes, pipeline: 1 }), machine),
        stages: linkOfParts(partsOf(axes), machine),
      };
      const divided = divideStep(step, optimizer, { strategies, mesh }, links);
      this.#steps.set(key, divided);
      const [first] = divided.parts;
      if (first !== undefined && axes.pipeline === 1 && !again) {
        this.#exchanged.push({ axes, seconds: first.exchanged.seconds });
      }
      return divided;
    } catch (error) {
      if (error instanceof LockstepError && error.code === "INVALID_OPTION") return undefined;
      throw error;
    }
  }
}

function partsOf({ context, expert, tensor, pipeline }: ModelAxes): number {
  return context * expert * tensor * pipeline;
}

/** Whether to divide a model so takes a search for how each value is held. */
function isSolved({ context, expert, tensor }: ModelAxes): boolean {
  return context > 1 || expert > 1 || tensor > 1;
}

function expertsIn(step: StepGraph): ExpertFacts {
  const [pass, ...others] = step.tasks.filter(isPiece);
  if (pass === undefined || others.length > 0) return { counts: [], share: 0 };
  const { counts } = expertsOf(step, pass, step.graphs.get(pass.graph) as Graph);
  const own = [...counts.keys()].map((name) => valueOfInput(step, pass, name));
  const all = pass.inputs.filter((name) => valueOf(step, name).role === "parameter");
  return {
    counts: [...new Set(counts.values())],
    share: bytesOf(step, own) / Math.max(1, bytesOf(step, all)),
  };
}

function textOf(way: DividedWay): string {
  return JSON.stringify(way);
}

/** Fewer parts first; of as many, stages first, which exchange the least, and one axis before several. */
function modelAxesOf(
  workers: number,
  microBatches: number,
  experts: readonly number[],
): ModelAxes[] {
  const sizes = divisorsOf(workers);
  const shares = sizes.filter((size) => experts.every((count) => count % size === 0));
  const expertSizes = experts.length === 0 ? [1] : shares;
  const all = sizes.flatMap((pipeline) =>
    sizes.flatMap((tensor) =>
      expertSizes.flatMap((expert) =>
        sizes.map((context): ModelAxes => ({ context, expert, tensor, pipeline })),
      ),
    ),
  );
  const isPossible = (axes: ModelAxes) => {
    const parts = partsOf(axes);
    const replicas = workers / parts;
    // A pipeline needs a micro-batch for each of its stages.
    const least = Math.floor(microBatches / replicas);
    return parts > 1 && Number.isInteger(replicas) && least >= axes.pipeline;
  };
  const wide = (axes: ModelAxes) => Object.values(axes).filter((size) => size > 1).length;
  return all
    .filter(isPossible)
    .toSorted(
      (a, b) =>
        partsOf(a) - partsOf(b) ||
        wide(a) - wide(b) ||
        b.pipeline - a.pipeline ||
        b.expert - a.expert ||
        b.tensor - a.tensor,
    );
}

function divisorsOf(number: number): number[] {
  const found: number[] = [];
  for (let at = 1; at <= number; at++) if (number % at === 0) found.push(at);
  return found;
}
