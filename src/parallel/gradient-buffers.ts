/** How many buffers the sums of gradients over micro-batches take, in the order of their tree. */

/**
 * The number of gradient buffers: one for each micro-batch that runs, and one for each sum of the
 * reduction tree that waits for its other half.
 */
export function wholeBuffers(microBatches: number, ranks: number, lanes: number): number {
  const own = Math.ceil(microBatches / ranks);
  let most = 1;
  for (let done = 0; done < own; done += lanes) {
    most = Math.max(most, onesOf(done) + Math.min(lanes, own - done));
  }
  return Math.min(own, most + (isOfTree(microBatches, ranks) ? 0 : 1));
}

/** The most sums of the reduction tree that are kept between two waves. */
export function waveBuffers(microBatches: number, perWave: number): number {
  let most = 1;
  for (let done = perWave; done < microBatches; done += perWave) {
    most = Math.max(most, onesOf(done));
  }
  // Else a wave ends within nodes of the tree.
  return Number.isInteger(Math.log2(perWave)) ? most : most + 1;
}

/**
 * Whether the micro-batches of each rank are one node of the reduction tree. If not, they are
 * several, whose sums are kept and sent one by one.
 */
export function isOfTree(microBatches: number, ranks: number): boolean {
  return ranks === 1 || Number.isInteger(Math.log2(microBatches / ranks));
}

/** The number of nodes of the tree that the first `count` leaves make up. */
function onesOf(count: number): number {
  return count.toString(2).replaceAll("0", "").length;
}
