/** What is said of ways to share a step: their names, why one was chosen, and that none fits. */
import type { LockstepError } from "../errors.ts";
import type { StepFacts } from "../plan/index.ts";
import { textOfBytes } from "./bytes.ts";
import { type Machine, type Sharing, sizesOf, totalOf } from "./cost.ts";
import { outOfMemory } from "./out-of-memory.ts";
import type { CostOptions, Priced, Way } from "./ways.ts";
import type { Axes } from "./workers.ts";

export function usualReason(machine: Machine): string {
  const { nodes, each } = sizesOf(machine);
  if (nodes * each === 1) return "One worker computes the whole step.";
  if (nodes === 1) {
    return `${each} workers of one node share memory: each sums and updates its part of the weights in place.`;
  }
  if (each === 1) {
    return `${nodes} nodes of one worker: each has all weights, and gradients travel in buckets beside computation.`;
  }
  return (
    `${nodes} nodes of ${each} workers: within a node each sums and updates its part in place, ` +
    "and between nodes gradients travel in buckets beside computation."
  );
}

/** Says why several workers compute each micro-batch together. */
export function reasonToDivide(
  found: Priced,
  { microBatches }: Pick<StepFacts, "microBatches">,
  workers: number,
): string {
  const { data, shard } = found.sharing;
  const of = workers / (data * shard);
  const how = found.timetable === undefined ? "" : ` (${found.timetable})`;
  return `${workers} workers for ${microBatches} ${microBatches === 1 ? "micro-batch" : "micro-batches"}: ${namedAxes(found)}${how}, so that ${of} workers divide the model and compute each micro-batch together.`;
}

/**
 * Says why a simpler way was not chosen.
 * @param whole the best way that does not divide the model, if one fits
 */
export function reasonOf(
  found: Priced,
  ways: readonly Way[],
  machine: Machine,
  whole?: Way,
): string {
  const { memory } = machine;
  const name = nameOf(found, machine);
  const before = ways.slice(
    0,
    ways.findIndex(({ sharing }) => isSame(sharing, found.sharing)),
  );
  if (found.axes !== undefined && whole !== undefined) {
    const rival = whole.priced();
    return `${upper(name)}, because a step is predicted to take ${textOfSeconds(found.cost.seconds)} with it and ${textOfSeconds(rival.cost.seconds)} with ${nameOf(rival, machine)}. Workers that come and go (lockstep train) divide a model only where nothing else fits, or where it is stated: --parallel ${statedAxes(found)}.`;
  }
  const isPlain = [found.axes, found.recompute, found.offload, found.buddies].every(
    (own) => own === undefined,
  );
  const rivals = (isPlain ? before : ways).map((way) => way.priced());
  const tooLarge = rivals.filter(({ need }) => need > memory);
  const [first, ...more] = tooLarge;
  const own = `${short(found.need)} a worker`;
  if (first === undefined) {
    const [rival] = rivals;
    if (rival === undefined) return `${upper(name)} takes ${own}.`;
    return `${upper(name)}, because a step is predicted to take ${textOfSeconds(found.cost.seconds)} with it and ${textOfSeconds(rival.cost.seconds)} with ${nameOf(rival, machine)}.`;
  }
  const others = more.map((way) => `${nameOf(way, machine)}: ${short(way.need)}`);
  const also = others.length > 0 ? ` (${others.join(", ")})` : "";
  const tight = found.need > memory ? ", which may not be enough either" : "";
  return `${upper(name)}, because ${nameOf(first, machine)} would take ${short(first.need)} a worker of the ${short(memory)} that it has${also}; ${name} takes ${short(found.need)}${tight}.`;
}

function isSame(a: Sharing, b: Sharing): boolean {
  return a.data === b.data && a.shard === b.shard && a.zero === b.zero;
}

/** Names a way for people, as in `zero 3 within each node with recomputation`. */
export function nameOf(
  { sharing, axes, timetable, recompute, offload, buddies }: Omit<Priced, "cost" | "need">,
  machine: Machine,
): string {
  const { data, shard, zero } = sharing;
  const { nodes, each } = sizesOf(machine);
  const where = nodes > 1 && each > 1 && data > 1 && shard > 1 ? " within each node" : "";
  const own = nodes * each === 1 ? "one worker" : zero === 0 ? "data" : `zero ${zero}${where}`;
  const way = axes === undefined ? own : namedAxes({ sharing, axes });
  const more = [
    ...(timetable === undefined ? [] : [`(${timetable})`]),
    ...(recompute === undefined ? [] : ["with recomputation"]),
    ...(offload === undefined ? [] : ["with offload to disk"]),
    ...(buddies === undefined ? [] : ["without buddies"]),
  ];
  return [way, ...more].join(" ");
}

export function noRoom(least: Priced, { facts, machine }: CostOptions): LockstepError {
  const { nodes, each } = sizesOf(machine);
  const { memory } = machine;
  const taken = least.cost.memory;
  const kinds = [
    ["parameters", taken.parameters],
    ["gradients", taken.gradients],
    ["optimizer slots", taken.slots],
    ["what is gathered and sent", taken.buffers],
    ["activations", taken.activations],
  ] as const;
  const held = kinds.filter(([, bytes]) => bytes > 0);
  const parts = held.map(([kind, bytes]) => `${kind} ${short(bytes)}`).join(", ");
  const size = nodes * each;
  return outOfMemory({
    workers: size,
    needed: totalOf(least.cost.memory),
    parts: `${size === 1 ? "" : `with ${nameOf(least, machine)}: `}${parts}`,
    memory,
    wholeRule: facts.wholeRule,
    isOffloaded: machine.isOffloaded === true || least.offload !== undefined,
  });
}

/** Formats a prediction with three digits. */
function short(bytes: number): string {
  return textOfBytes(Number(bytes.toPrecision(3)));
}

function upper(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}

export function textOfSeconds(time: number): string {
  return time < 1 ? `${(time * 1e3).toPrecision(3)} ms` : `${time.toPrecision(3)} s`;
}

/** The axes that divide a model, and what workers share that have the same part of it. */
function namedAxes(way: Pick<Priced, "sharing" | "axes">): string {
  const { zero } = way.sharing;
  const wide = Object.entries(axesOf(way)).filter(([, size]) => size > 1);
  const shared = zero === 0 ? [] : [`zero ${zero}`];
  return [...wide.map(([axis, size]) => `${axis} ${size}`), ...shared].join(", ");
}

/**
 * The sizes of the axes of a way as a run states them. ZeRO-1 over all workers that have the same part
 * of a model is said as one of `data`, which follows their number.
 */
function axesOf({ sharing, axes }: Pick<Priced, "sharing" | "axes">): Axes {
  const { data, shard, zero } = sharing;
  const isOne = axes !== undefined && zero === 1 && data === 1;
  return { ...(isOne ? { data: shard, shard: 1 } : { data, shard }), ...axes };
}

/** The axes of a way as the command line takes them. */
function statedAxes(way: Pick<Priced, "sharing" | "axes" | "timetable">): string {
  const wide = Object.entries(axesOf(way)).filter(([, size]) => size > 1);
  const { zero } = way.sharing;
  const sizes = wide.map(([axis, size]) => `${axis}=${size}`).join();
  const more = way.timetable === undefined ? "" : ` --timetable ${way.timetable}`;
  return `${sizes}${zero === 0 ? "" : ` --zero ${zero}`}${more}`;
}

/** A way in the words of a run. What the run states stays. */
export function statedOf(
  way: Omit<Priced, "cost" | "need">,
  options: Partial<Pick<Priced, "recompute" | "offload">> & {
    readonly buddies?: boolean | undefined;
    readonly timetable?: string | undefined;
  },
) {
  const { zero } = way.sharing;
  return {
    parallel: axesOf(way),
    zero: zero === 0 ? undefined : zero,
    timetable: way.timetable ?? options.timetable,
    recompute: way.recompute ?? options.recompute,
    offload: way.offload ?? options.offload,
    buddies: way.buddies ?? options.buddies,
  };
}
