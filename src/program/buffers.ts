/**
 * The names of a program's buffers, and what each buffer is for. No other file spells a name out.
 */

export const PARAMETERS = "parameters";
/** New parameters where they cannot be written over those that are still read. */
export const SCRATCH = "parameters.next";
/** What micro-batches are summed to. */
export const GRADIENTS = "gradients";
/** Scalars of the optimizer's rules, written by the host before an update. */
export const SCALARS = "scalars";
/** Sums of squares of the gradient's tiles. */
export const PARTIALS = "partials";
/** The terms of the loss that ranks have made of their parts of the same samples. */
export const TERMS = "terms";
/** What the ranks that divide the model tell each other in a step. */
export const WISHES = "wishes";
export const SUMMARY_BUFFER = "summary";
/** What the runs of a commit overwrite, and which of them are done. */
export const JOURNAL = "journal";
/** The next states of micro-batches whose states are not used. */
export const UNUSED_STATES = "states.unused";
/** The terms of the loss of a batch that is computed whole. */
export const LOSSES = "losses";
/** What each micro-batch contributes to the totals of the batch, a row each. */
export const TOTALS = "totals";
/** The totals of the whole batch, which every micro-batch is given. */
export const GIVEN_TOTALS = "totals.given";
/** Parts that the ranks of one node have summed, on their way to other nodes. */
export const NODE_SUMS = "node";
/** Parts that other nodes have sent. */
export const COPIES = "copies";

const SLOT = "slot";
const UNIT = "unit";
const BUCKET = "bucket";
const ACTIVATIONS = "activations";

/** What a micro-batch writes, or a part of the tree of sums; that of index 0 gets the sum. */
export function gradientBuffer(index: number): string {
  return index === 0 ? GRADIENTS : `${GRADIENTS}.${index}`;
}

/** One of the two sets of states. */
export function stateBuffer(side: number): string {
  return `states.${side}`;
}

/** What the pieces of a micro-batch hand on, by the lane in which it runs. */
export function activationBuffer(lane: number): string {
  return `${ACTIVATIONS}.${lane}`;
}

export function slotBuffer(rule: number, slot: string): string {
  return `${SLOT}.${rule}.${slot}`;
}

/** The gradients of a piece, as a micro-batch in a lane has made them. */
export function bucketBuffer(index: number, lane: number): string {
  return `${BUCKET}.${index}.${lane}`;
}

/** Parameters that are gathered together; their buffers take turns. */
export function unitBuffer(turn: number): string {
  return `${UNIT}.${turn}`;
}

/** What other ranks have sent of the gradients of a piece, made in a lane. */
export function receivedBuffer(lane: number): string {
  return `received.${lane}`;
}

/** What a micro-batch in a lane makes beside the gradients. */
export function besideBuffer(lane: number): string {
  return `beside.${lane}`;
}

/** What a rank gives to the others of an axis within a pass; buffers take turns. */
export function exchangeBuffer(axis: string, turn: number, lane: number): string {
  return `exchange ${axis}.${turn}.${lane}`;
}

/** What other nodes have sent of what stages of a pipeline make. */
export const ARRIVED = "activations.arrived";

/** The parts of parameters that ranks of several nodes have, brought together for an evaluation. */
export const PARTS = "unit.parts";

/** Parameters of a stage that ranks of several nodes own, brought together before a step. */
export const STAGE_UNIT = "unit.stage";

/** A field of the batches that a step trains on, or that an evaluation looks at. */
export function fieldBuffer(of: "batch" | "evaluation", field: string): string {
  return `${of}.${field}`;
}

/** The terms of a batch of an evaluation, by the index of its size. */
export function evaluationSumsBuffer(size: number): string {
  return `evaluation sums.${size}`;
}

/** A total that the trainer reads and writes in each step. */
export function countedBuffer(total: string): string {
  return `${TOTALS}.${total}`;
}

export type MemoryKind =
  | "parameters"
  | "gradients"
  | "optimizer slots"
  | "gathered units"
  | "buckets"
  | "between pieces"
  | "within a piece"
  | "the process itself"
  | "other";

const KINDS: ReadonlyMap<string, MemoryKind> = new Map([
  [PARAMETERS, "parameters"],
  [GRADIENTS, "gradients"],
  [SLOT, "optimizer slots"],
  [UNIT, "gathered units"],
  [BUCKET, "buckets"],
  [ACTIVATIONS, "between pieces"],
]);

/** What the memory of a buffer is counted as. */
export function kindOf(buffer: string): MemoryKind {
  return KINDS.get(buffer.split(".", 1)[0] as string) ?? "other";
}
