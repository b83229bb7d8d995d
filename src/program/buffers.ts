/** The names of a program's buffers. */

export const PARAMETERS = "parameters";
/** New parameters where they cannot be written over those that are still read. */
export const SCRATCH = "parameters.next";
/** What micro-batches are summed to. */
export const GRADIENTS = "gradients";
/** Scalars of the optimizer's rules, written by the host before an update. */
export const SCALARS = "scalars";
/** Sums of squares of the gradient's tiles. */
export const PARTIALS = "partials";
export const SUMMARY_BUFFER = "summary";

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
  return `activations.${lane}`;
}

export function slotBuffer(rule: number, slot: string): string {
  return `slot.${rule}.${slot}`;
}

/** The gradients of a piece, as a micro-batch in a lane has made them. */
export function bucketBuffer(index: number, lane: number): string {
  return `bucket.${index}.${lane}`;
}

/** What other ranks have sent of the gradients of a piece, made in a lane. */
export function receivedBuffer(lane: number): string {
  return `received.${lane}`;
}

/** What a micro-batch in a lane makes beside the gradients. */
export function besideBuffer(lane: number): string {
  return `beside.${lane}`;
}
