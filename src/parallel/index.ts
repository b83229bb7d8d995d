export { type BucketOptions, bucketBytes, buckets, type Link } from "./buckets.ts";
export { bytesOfText } from "./bytes.ts";
export {
  type ChooseOptions,
  chooseParallel,
  type Parallel,
  type ParallelOptions,
} from "./choose.ts";
export { compress } from "./compress.ts";
export { type DataOptions, data, PACES } from "./data.ts";
export { type Recompute, recompute } from "./recompute.ts";
export { applyStrategies, type Strategy } from "./strategy.ts";
export { checkWorkers } from "./workers.ts";
export { sharedUpdates, zero1, zero2, zero3 } from "./zero.ts";
