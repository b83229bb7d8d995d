/**
 * Chooses how a step is shared where the user states nothing: the fastest way that fits the memory
 * of a rank, and of nearly equal ones the simplest. A pure function of numbers, so ranks that are
 * given the same numbers choose the same.
 */
import type { LockstepError } from "../errors.ts";
import { type PassMemory, PROCESS_BYTES, type StepFacts } from "../plan/index.ts";
import { textOfBytes } from "./bytes.ts";
import {
  type Cost,
  copiesOf,
  type Machine,
  memoryOf,
  passOf,
  type Sharing,
  sizesOf,
  timeOf,
  totalOf,
} from "./cost.ts";
import { keptOnDisk } from "./disk-cost.ts";
import type { Offload } from "./offload.ts";
import { outOfMemory } from "./out-of-memory.ts";
import type { Recompute } from "./recompute.ts";

/** A way to share a step, with what it is predicted to cost. */
export interface Priced {
  readonly sharing: Sharing;
  readonly recompute: Recompute | undefined;
  readonly offload: Offload | undefined;
  /** False: without buddies, which would take too much memory. */
  readonly buddies: false | undefined;
  readonly cost: Cost;
  /** The bytes that a rank needs, with those of its process and a margin. */
  readonly need: number;
}

export interface Chosen extends Pick<Priced, "sharing" | "recompute" | "offload" | "buddies"> {
  /** A sentence for people. */
  readonly reason: string;
  /** Computes the costs; it may cut the pass into pieces for that. */
  readonly priced: () => Priced;
}

export interface CostOptions {
  readonly facts: StepFacts;
  /** What the user has stated. */
  readonly buddies?: boolean | undefined;
  /**
   * The step with all blocks computed again; undefined where that is not possible, or the user has
   * stated what is computed again.
   */
  readonly repeating?: (() => StepFacts | undefined) | undefined;
  readonly machine: Machine;
}

/** The engine's arena of activations takes more than the lifetimes of values say. */
const MARGIN = 1.1;
/** Predicted times count as equal if their ratio is below this. */
const NEARLY = 1.05;

/** @throws OUT_OF_MEMORY where no way fits */
export function chooseByCost(options: CostOptions): Chosen {
  const { machine } = options;
  const ways = waysOf(options.facts, machine);
  const usual = ways[0] as Way;
  // Where memory is no question, measurements and not predictions have shown what is fastest.
  if (fits(usual, machine)) {
    const { sharing, priced } = usual;
    const way = { sharing, recompute: undefined, offload: undefined, buddies: undefined } as const;
    return { ...way, reason: usualReason(machine), priced };
  }
  const again = options.repeating?.();
  const repeatedToo = (own: readonly Way[], on: Machine) =>
    again === undefined ? own : [...own, ...repeatingWays(own, options.facts, again, on)];
  const inMemory = repeatedToo(ways, machine);
  const alone: Machine = { ...machine, hasBuddies: false };
  const canBeAlone = machine.hasBuddies === true && options.buddies === undefined;
  const bareWays = canBeAlone ? waysOf(options.facts, alone, { buddies: false }) : [];
  const bare = repeatedToo(bareWays, alone);
  // A disk is the last resort.
  const offloaded = () => repeatedToo(offloadedWays(options.facts, machine), onDisk(machine));
  const found =
    best(inMemory, machine) ??
    best(bare, machine) ??
    best(offloaded(), machine) ??
    leastOf([...inMemory, ...bare, ...offloaded()]);
  const priced = found.priced();
  if (totalOf(priced.cost.memory) > machine.memory) throw noRoom(priced, options);
  const { sharing, recompute, offload, buddies } = priced;
  const reason = reasonOf(priced, ways, machine);
  return { sharing, recompute, offload, buddies, reason, priced: () => priced };
}

function onDisk(machine: Machine): Machine {
  return { ...machine, isOffloaded: true };
}

/** The ways whose updates' state has room on the disk, if it does not lie there already. */
function offloadedWays(facts: StepFacts, machine: Machine): Way[] {
  const { disk, isOffloaded = false } = machine;
  if (disk === undefined || isOffloaded) return [];
  const hasRoom = ({ sharing }: Way) => {
    const { parameters, slots } = keptOnDisk(sharing, facts, copiesOf(sharing, machine));
    return parameters + slots > 0 && parameters + slots <= disk.room;
  };
  return waysOf(facts, onDisk(machine), { offload: "disk" }).filter(hasRoom);
}

/** All ways without recomputation, the simplest first, for people to compare. */
export function comparison({ facts, machine }: CostOptions): Priced[] {
  return waysOf(facts, machine).map((way) => way.priced());
}

/** A way whose memory is computed on demand, because the pass may have to be cut for it. */
interface Way {
  readonly sharing: Sharing;
  readonly seconds: number;
  /** An upper bound of the bytes that it needs, without cutting the pass. */
  readonly surelyNeeds: number;
  priced(): Priced;
}

/** @param chosen what is chosen, if it is not stated */
function waysOf(
  facts: StepFacts,
  machine: Machine,
  { offload, buddies }: Partial<Pick<Priced, "offload" | "buddies">> = {},
): Way[] {
  return sharings(facts, machine).map((sharing): Way => {
    const time = timeOf(sharing, facts, machine);
    const whole = sizeOf(facts.pass);
    const most = { between: whole, within: whole };
    let known: Priced | undefined;
    return {
      sharing,
      seconds: time.seconds,
      surelyNeeds: needOf(memoryOf(sharing, facts, machine, most)),
      priced() {
        if (known !== undefined) return known;
        const memory = memoryOf(sharing, facts, machine, passOf(sharing, facts, machine));
        const cost = { ...time, memory };
        known = { sharing, recompute: undefined, offload, buddies, cost, need: needOf(memory) };
        return known;
      },
    };
  });
}

/**
 * The same ways with as few blocks computed again as make each fit, or with all where it does not.
 */
function repeatingWays(
  ways: readonly Way[],
  facts: StepFacts,
  again: StepFacts,
  machine: Machine,
): Way[] {
  return ways.map(({ sharing, priced }): Way => {
    const least = again.inPieces();
    const memory = memoryOf(sharing, again, machine, least);
    const lanes = memory.activations / Math.max(1, sizeOf(least));
    const room = (machine.memory - PROCESS_BYTES) / MARGIN - totalOf(memory) + memory.activations;
    const budget = Math.floor(room / lanes);
    const full = priced().cost.memory.activations / lanes;
    const saved = Math.max(1, full - sizeOf(least));
    const share = Math.min(1, Math.max(0, (full - budget) / saved));
    const isPart = share < 1 && budget >= sizeOf(least);
    const flops = facts.flops + (isPart ? share : 1) * (again.flops - facts.flops);
    const time = timeOf(sharing, { ...again, flops }, machine);
    const activations = lanes * (isPart ? Math.min(budget, full) : sizeOf(least));
    const cost = { ...time, memory: { ...memory, activations } };
    const recompute = isPart ? { memory: budget } : "blocks";
    const need = needOf(cost.memory);
    const way = { ...priced(), recompute, cost, need } as const;
    return { sharing, seconds: time.seconds, surelyNeeds: need, priced: () => way };
  });
}

function sizeOf({ between, within }: PassMemory): number {
  return between + within;
}

function needOf(memory: Cost["memory"]): number {
  return totalOf(memory) * MARGIN + PROCESS_BYTES;
}

/** The fastest that fits, or one before it in the list that is nearly as fast. */
function best(ways: readonly Way[], machine: Machine): Way | undefined {
  const fitting = (way: Way) => fits(way, machine);
  const fastest = ways.toSorted((a, b) => a.seconds - b.seconds).find(fitting);
  if (fastest === undefined) return undefined;
  return ways.find((way) => way.seconds <= fastest.seconds * NEARLY && fitting(way));
}

function fits(way: Way, { memory }: Machine): boolean {
  return way.surelyNeeds <= memory || way.priced().need <= memory;
}

function leastOf(ways: readonly Way[]): Way {
  return ways.reduce((least, way) => (way.priced().need < least.priced().need ? way : least));
}

/**
 * The simplest first. On one node ranks sum in place, which makes ZeRO-1 free; between nodes each
 * rank (or each place on a node) updates all of its part, so that only gradients are sent.
 */
function sharings({ wholeRule }: StepFacts, machine: Machine): Sharing[] {
  const { nodes, each } = sizesOf(machine);
  const size = nodes * each;
  if (size === 1) return [{ data: 1, shard: 1, zero: 0 }];
  const data: Sharing = { data: size, shard: 1, zero: 0 };
  const over = (shard: number) =>
    ([1, 2, 3] as const).map((zero): Sharing => ({ data: size / shard, shard, zero }));
  const [first = data, ...more] = over(each === 1 ? size : each);
  const all =
    each === 1 ? [data, first, ...more] : [first, data, ...more, ...(nodes > 1 ? over(size) : [])];
  return all.filter(({ zero }) => zero < 2 || wholeRule === undefined);
}

function usualReason(machine: Machine): string {
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

/** Says why a simpler way was not chosen. */
function reasonOf(found: Priced, ways: readonly Way[], machine: Machine): string {
  const { memory } = machine;
  const name = nameOf(found, machine);
  const before = ways.slice(
    0,
    ways.findIndex(({ sharing }) => isSame(sharing, found.sharing)),
  );
  const isPlain = [found.recompute, found.offload, found.buddies].every((own) => own === undefined);
  const rivals = (isPlain ? before : ways).map((way) => way.priced());
  const tooLarge = rivals.filter(({ need }) => need > memory);
  const [first, ...more] = tooLarge;
  const own = `${short(found.need)} a worker`;
  if (first === undefined) {
    const [rival] = rivals;
    if (rival === undefined) return `${upper(name)} takes ${own}.`;
    return `${upper(name)}, because a step is predicted to take ${seconds(found.cost.seconds)} with it and ${seconds(rival.cost.seconds)} with ${nameOf(rival, machine)}.`;
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
  {
    sharing: { data, shard, zero },
    recompute,
    offload,
    buddies,
  }: Pick<Priced, "sharing" | "recompute" | "offload" | "buddies">,
  machine: Machine,
): string {
  const { nodes, each } = sizesOf(machine);
  const where = nodes > 1 && each > 1 && data > 1 && shard > 1 ? " within each node" : "";
  const way = nodes * each === 1 ? "one worker" : zero === 0 ? "data" : `zero ${zero}${where}`;
  const more = [
    ...(recompute === undefined ? [] : ["with recomputation"]),
    ...(offload === undefined ? [] : ["with offload to disk"]),
    ...(buddies === undefined ? [] : ["without buddies"]),
  ];
  return [way, ...more].join(" ");
}

function noRoom(least: Priced, { facts, machine }: CostOptions): LockstepError {
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

function seconds(time: number): string {
  return time < 1 ? `${(time * 1e3).toPrecision(3)} ms` : `${time.toPrecision(3)} s`;
}
