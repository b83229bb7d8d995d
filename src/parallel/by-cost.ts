/**
 * Chooses how a step is shared where the user states nothing: the fastest way that fits the memory
 * of a rank, and of nearly equal ones the simplest. A pure function of numbers, so ranks that are
 * given the same numbers choose the same.
 */
import { type PassMemory, PROCESS_BYTES, type StepFacts } from "../plan/index.ts";
import { noRoom, reasonOf, reasonToDivide, usualReason } from "./by-cost-words.ts";
import {
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
import { secondsOfWork } from "./roofline.ts";
import {
  type Chosen,
  CLEARLY,
  type CostOptions,
  MARGIN,
  NEARLY,
  needOf,
  type Priced,
  type Way,
} from "./ways.ts";
import { tooManyWorkers } from "./workers.ts";

/**
 * @throws OUT_OF_MEMORY where no way fits; INVALID_OPTION for more workers than micro-batches that
 *   cannot divide the model
 */
export function chooseByCost(options: CostOptions): Chosen {
  const { machine } = options;
  const { nodes, each } = sizesOf(machine);
  if (nodes * each > options.facts.microBatches) return byParts(options, nodes * each);
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
  const whole = best(inMemory, machine) ?? best(bare, machine);
  const divided = dividedInstead(whole, options);
  if (divided !== undefined) {
    return { ...divided, reason: reasonOf(divided, ways, machine, whole), priced: () => divided };
  }
  const found =
    whole ?? best(offloaded(), machine) ?? leastOf([...inMemory, ...bare, ...offloaded()]);
  const priced = found.priced();
  if (totalOf(priced.cost.memory) > machine.memory) throw noRoom(priced, options);
  const { sharing, recompute, offload, buddies } = priced;
  const reason = reasonOf(priced, ways, machine);
  return { sharing, recompute, offload, buddies, reason, priced: () => priced };
}

/** A way that divides the model, where no other fits or it is clearly faster. */
function dividedInstead(
  whole: Way | undefined,
  { divided, onlyIfNeeded = false }: CostOptions,
): Priced | undefined {
  if (whole === undefined) return divided?.(Number.POSITIVE_INFINITY);
  return onlyIfNeeded ? undefined : divided?.(whole.seconds / CLEARLY);
}

/** There are more workers than micro-batches, so several compute each together. */
function byParts({ divided, facts }: CostOptions, workers: number): Chosen {
  const found = divided?.(Number.POSITIVE_INFINITY);
  if (found === undefined) throw tooManyWorkers(workers, facts.microBatches);
  const reason = reasonToDivide(found, facts, workers);
  return { ...found, reason, priced: () => found };
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
    const [once, twice] = [facts, again].map(({ work }) => secondsOfWork(work, machine));
    const pass = (once as number) + (isPart ? share : 1) * ((twice as number) - (once as number));
    const time = timeOf(sharing, again, machine, pass);
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
export function sharings({ wholeRule }: Pick<StepFacts, "wholeRule">, machine: Machine): Sharing[] {
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
