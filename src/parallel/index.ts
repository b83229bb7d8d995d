export { type BucketOptions, bucketBytes, buckets, type Link } from "./buckets.ts";
export { type ChooseOptions, chooseParallel, type Parallel } from "./choose.ts";
export { type DataOptions, data, PACES } from "./data.ts";
export { applyStrategies, type Strategy } from "./strategy.ts";
export { type Phases, phasesOf, unitOf } from "./units.ts";
export { sharedUpdates, zero1, zero2, zero3 } from "./zero.ts";
