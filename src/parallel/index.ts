export { bucketBytes, buckets } from "./buckets.ts";
export { bytesOfText } from "./bytes.ts";
export { chooseParallel, type Parallel, type ParallelOptions } from "./choose.ts";
export { compress } from "./compress.ts";
export { data, PACES } from "./data.ts";
export { type Recompute, recompute } from "./recompute.ts";
export { applyStrategies, type Strategy } from "./strategy.ts";
export { sharedUpdates, zero1, zero2, zero3 } from "./zero.ts";
