/**
 * A model of what a way to share a step costs: memory, traffic and time of a rank, from numbers of
 * the step and of the machine. It is for choosing, and knows the lowering only in outline: the plan
 * of a rank (`program/`) has the exact numbers.
 */
import type { Topology } from "../mesh/index.ts";
import { MEMORY_SPEED, type PassMemory, type StepFacts } from "../plan/index.ts";
import type { Link } from "./buckets.ts";
import { type Disk, diskSeconds, keptOnDisk } from "./disk-cost.ts";
import { isOfTree, waveBuffers, wholeBuffers } from "./gradient-buffers.ts";
import { secondsOfWork } from "./roofline.ts";

/** A way to share a step: the sizes of the axes, and what is sharded over `shard`. */
export interface Sharing {
  /** The number of shard groups; each holds the whole model. */
  readonly data: number;
  /** The number of ranks of a shard group. */
  readonly shard: number;
  readonly zero: 0 | 1 | 2 | 3;
}

/** The hardware of the ranks. */
export interface Machine {
  /** Nodes of equally many ranks. */
  readonly topology: Topology;
  /** Bytes that each rank may have. Infinity: unknown or without a limit. */
  readonly memory: number;
  /** Micro-batches that a rank may run at once. */
  readonly lanes: number;
  readonly flopsPerSecond: number;
  /** The link of a rank to another node while all ranks use theirs. */
  readonly link: Link;
  /** Between ranks of a node, for what they exchange within a pass. Default: as measured (docs/lab.md). */
  readonly within?: Link | undefined;
  /**
   * Bytes that a rank reads and writes in a second. If it is stated, `flopsPerSecond` is the speed of
   * products alone: an operator takes as long as its operations or its bytes, whichever is longer.
   * Default: `MEMORY_SPEED`, and `flopsPerSecond` is the speed of all operators together.
   */
  readonly memorySpeed?: number | undefined;
  /** A bucket of gradients is closed when it holds this many bytes. */
  readonly bucketBytes: number;
  /** Whether optimizer slots and sharded parameters lie on disk. Default: false. */
  readonly isOffloaded?: boolean;
  /** Whether what one node alone would hold has a copy on another. Default: false. */
  readonly hasBuddies?: boolean;
  /** Where they could lie. Undefined: there is no disk for them, or none that is known. */
  readonly disk?: Disk | undefined;
}

/** Predictions for a rank and a step. Sizes are in bytes, times in seconds. */
export interface Cost {
  readonly memory: {
    readonly parameters: number;
    readonly gradients: number;
    readonly slots: number;
    /** Gathered parameters, and gradients on their way. */
    readonly buffers: number;
    readonly activations: number;
  };
  /** What the rank receives over links between nodes. */
  readonly sent: number;
  /** What the rank reads in the memory of neighbours on its node. */
  readonly read: number;
  readonly computing: number;
  /**
   * The seconds of communication that no computation hides. Copies within a node are never hidden,
   * because they use the same cores.
   */
  readonly exposed: number;
  readonly seconds: number;
}

/**
 * The speed of a rank if it was not measured. All ways have the same, so it decides only how much
 * communication the computation hides.
 */
export const DEFAULT_FLOPS = 8e10;
/** The part of a pass that is left when the first gradients are ready. */
const BACKWARD = 2 / 3;
/** Gathered units are double-buffered: one is filled while the other is used. */
const TURNS = 2;

/**
 * Returns the bytes of activations of a micro-batch, as this way runs the pass. A whole pass that is cut so that
 * gradients travel beside it is run whole once, before the first step, to see that both give the
 * same bits.
 */
export function passOf({ zero }: Sharing, facts: StepFacts, machine: Machine): PassMemory {
  const { pass, isRepeating, inPieces } = facts;
  if (zero >= 2 || isRepeating) return inPieces();
  return sizesOf(machine).nodes === 1 ? pass : { ...pass, between: inPieces().between };
}

/** @param pass the activations of a micro-batch */
export function memoryOf(
  sharing: Sharing,
  facts: StepFacts,
  machine: Machine,
  pass: PassMemory,
): Cost["memory"] {
  const { zero, shard, data } = sharing;
  const { nodes, each } = sizesOf(machine);
  const lanes = lanesOf(sharing, facts, machine);
  const { parameters, gradients, slots, scratch } = facts;
  const copies = copiesOf(sharing, machine);
  const part = (least: number) => (zero >= least ? copies / shard : 1);
  const bucket = bucketOf(sharing, facts, machine);
  const activations = lanes * (pass.between + pass.within);
  const { isOffloaded = false } = machine;
  const isInParts = zero === 3 && shard > 1;
  const held = {
    parameters: scratch * part(3) + (isOffloaded && isInParts ? 0 : parameters * part(3)),
    slots: isOffloaded ? 0 : slots * part(1) + facts.wholeSlots,
    activations,
  };
  if (zero < 2) {
    const buffers = wholeBuffers(facts.microBatches, nodes * each, lanes);
    // Sums of the own node, and what other nodes send of a bucket.
    const ofNode = each > 1 ? 1 : 0;
    const copies = nodes === 1 ? 0 : (bucket * (1 - 1 / nodes + ofNode)) / each;
    return { ...held, gradients: gradients * buffers, buffers: copies };
  }
  const sums = waveBuffers(facts.microBatches / data, shard * lanes);
  const received = isInPlace(sharing, machine) ? 0 : lanes;
  const units = zero === 3 ? TURNS * facts.largestUnit : 0;
  const ofReplicas = data > 1 ? bucket / shard : 0;
  return {
    ...held,
    gradients: (gradients * (sums + copies - 1)) / shard,
    buffers: units + bucket * (TURNS * lanes + received) + ofReplicas,
  };
}

export function totalOf({ parameters, gradients, slots, buffers, activations }: Cost["memory"]) {
  return parameters + gradients + slots + buffers + activations;
}

/**
 * Predicts traffic and times; `memoryOf` predicts memory.
 * @param pass the seconds of a micro-batch
 */
export function timeOf(
  sharing: Sharing,
  facts: StepFacts,
  machine: Machine,
  pass = secondsOfWork(facts.work, machine),
): Omit<Cost, "memory"> {
  const { zero, shard } = sharing;
  const { nodes, each } = sizesOf(machine);
  const own = Math.ceil(facts.microBatches / (nodes * each));
  const touched = 2 * facts.parameters + facts.gradients + 2 * facts.slots;
  const part = zero > 0 ? copiesOf(sharing, machine) / shard : 1;
  const update = (touched * part) / speedOf(machine);
  const moved =
    zero < 2 ? wholeSums(sharing, facts, machine, pass) : waves(sharing, facts, machine, pass);
  const computing = own * pass;
  const seconds = computing + moved.exposed + update + offloadSeconds(sharing, facts, machine);
  return { ...moved, computing, seconds };
}

function offloadSeconds(sharing: Sharing, facts: StepFacts, machine: Machine): number {
  const { isOffloaded = false, disk } = machine;
  if (!isOffloaded || disk === undefined) return 0;
  const waves = waveCount(sharing, facts, machine);
  return diskSeconds(keptOnDisk(sharing, facts, copiesOf(sharing, machine)), waves, disk);
}

function waveCount(sharing: Sharing, facts: StepFacts, machine: Machine): number {
  const { data, shard } = sharing;
  return Math.ceil(facts.microBatches / data / (shard * lanesOf(sharing, facts, machine)));
}

type Moved = Pick<Cost, "sent" | "read" | "exposed">;

/**
 * The costs of sums of whole gradients, which are made once a step. Between nodes they are exchanged
 * beside the last backward pass.
 */
function wholeSums(sharing: Sharing, facts: StepFacts, machine: Machine, pass: number): Moved {
  const { zero, shard } = sharing;
  const { nodes, each } = sizesOf(machine);
  const { link, bucketBytes } = machine;
  const { gradients, parameters, microBatches } = facts;
  const lanes = lanesOf(sharing, facts, machine);
  const inPlace = isInPlace(sharing, machine);
  // A rank of several micro-batches leaves its last addition to those who sum.
  const halves = microBatches >= 2 * nodes * each ? 2 : 1;
  const summed = gradients * others(each) * halves;
  const spread = zero === 1 && inPlace ? 0 : gradients * others(each);
  const contributions = isOfTree(microBatches, nodes) ? 1 : 2;
  const exchanged = (((1 + contributions) * gradients) / each) * others(nodes);
  const fresh = zero === 1 ? gather(parameters, shard, machine, inPlace) : NOTHING;
  const buckets = Math.max(1, Math.ceil(gradients / bucketBytes));
  const wire = nodes === 1 ? 0 : 2 * buckets * link.latency + exchanged / link.bytesPerSecond;
  const beside = BACKWARD * pass * lanes;
  const late = Math.max(wire / buckets, wire - beside);
  return {
    sent: exchanged + fresh.sent,
    read: summed + spread + fresh.read,
    exposed: (summed + spread) / speedOf(machine) + (nodes === 1 ? 0 : late) + fresh.exposed,
  };
}

/**
 * The costs of ZeRO-2 and ZeRO-3: ranks run micro-batches in waves. In each wave, gradients go to
 * the ranks that own their shards, and with ZeRO-3 parameters come from there.
 */
function waves(sharing: Sharing, facts: StepFacts, machine: Machine, pass: number): Moved {
  const { data, shard, zero } = sharing;
  const { link } = machine;
  const inPlace = isInPlace(sharing, machine);
  const lanes = lanesOf(sharing, facts, machine);
  const count = waveCount(sharing, facts, machine);
  const reduced = facts.gradients * lanes * others(shard);
  const gathered = zero === 3 ? facts.gathered : 0;
  const fresh = zero === 2 ? gather(facts.parameters, shard, machine, inPlace) : NOTHING;
  const came = gather(gathered, shard, machine, inPlace);
  const bucket = bucketOf(sharing, facts, machine);
  const buckets = Math.max(1, Math.ceil(facts.gradients / bucket));
  // The first parameters and the last gradients have nothing beside them.
  const ends = inPlace ? 0 : came.exposed / buckets + reduced / buckets / link.bytesPerSecond;
  const wire = inPlace ? 0 : reduced / link.bytesPerSecond + buckets * link.latency + came.exposed;
  const late = Math.max(ends, wire - pass * lanes);
  const copied = inPlace ? (reduced + came.read) / speedOf(machine) : 0;
  // Replicas sum what they have, or sums go to buddies: after the last wave, bucket by bucket.
  const rounds = data > 1 ? 2 : copiesOf(sharing, machine) - 1;
  const after = ((data > 1 ? rounds * others(data) : rounds) * facts.gradients) / shard;
  const last = after / link.bytesPerSecond + rounds * buckets * link.latency;
  const lateAfter = Math.max(last / buckets, last - BACKWARD * pass * lanes);
  return {
    sent: count * ((inPlace ? 0 : reduced) + came.sent) + after + fresh.sent,
    read: count * ((inPlace ? reduced : 0) + came.read) + fresh.read,
    exposed:
      count * ((inPlace ? 0 : late) + copied) + (rounds === 0 ? 0 : lateAfter) + fresh.exposed,
  };
}

const NOTHING: Moved = { sent: 0, read: 0, exposed: 0 };

/**
 * The costs of an all-gather within a shard group, if nothing is computed beside it. Between nodes
 * of several ranks, each byte goes to a node once.
 */
function gather(bytes: number, shard: number, machine: Machine, inPlace: boolean): Moved {
  const all = bytes * others(shard);
  if (inPlace) return { sent: 0, read: all, exposed: all / speedOf(machine) };
  const { nodes, each } = sizesOf(machine);
  const sent = (bytes * others(nodes)) / each;
  const read = all - sent;
  const { bytesPerSecond, latency } = machine.link;
  return { sent, read, exposed: latency + sent / bytesPerSecond + read / speedOf(machine) };
}

export function speedOf({ memorySpeed = MEMORY_SPEED }: Machine): number {
  return memorySpeed;
}

function others(ranks: number): number {
  return (ranks - 1) / ranks;
}

export function sizesOf({ topology: { nodes } }: Pick<Machine, "topology">): {
  readonly nodes: number;
  readonly each: number;
} {
  return { nodes: nodes.length, each: nodes[0]?.length ?? 1 };
}

/** Whether the ranks of a shard group are on one node, and read each other's memory. */
function isInPlace({ shard }: Sharing, machine: Machine): boolean {
  return shard <= sizesOf(machine).each;
}

/** How many ranks hold each part: 2 if all of it would be on one node, and has a buddy on another. */
export function copiesOf({ data, shard, zero }: Sharing, machine: Machine): 1 | 2 {
  const isAlone = zero > 0 && data === 1 && shard > sizesOf(machine).each;
  return isAlone && machine.hasBuddies === true ? 2 : 1;
}

/** The number of micro-batches that a rank runs at once. */
export function lanesOf(
  { data, shard, zero }: Sharing,
  { microBatches }: StepFacts,
  { lanes }: Machine,
): number {
  const each =
    zero < 2 ? Math.ceil(microBatches / (data * shard)) : Math.floor(microBatches / data / shard);
  return Math.min(lanes, Math.max(1, each));
}

/** The bytes of the largest bucket in which gradients are exchanged. */
function bucketOf({ zero }: Sharing, facts: StepFacts, { bucketBytes }: Machine): number {
  if (zero === 3) return facts.largestUnit;
  return Math.min(facts.gradients, Math.max(bucketBytes, facts.largestGradient));
}
