export { type BucketOptions, bucketBytes, buckets, type Link } from "./buckets.ts";
export { type CostOptions, chooseByCost, comparison, outOfMemory } from "./by-cost.ts";
export { bytesOfText, textOfBytes } from "./bytes.ts";
export {
  type ChooseOptions,
  chooseParallel,
  type Parallel,
  type ParallelOptions,
  type Prediction,
} from "./choose.ts";
export { compress } from "./compress.ts";
export { type Cost, DEFAULT_FLOPS, type Machine, type Sharing, totalOf } from "./cost.ts";
export { type DataOptions, data, PACES } from "./data.ts";
export { type Recompute, recompute } from "./recompute.ts";
export { applyStrategies, type Strategy } from "./strategy.ts";
export { sharedUpdates, zero1, zero2, zero3 } from "./zero.ts";
