export { bucketBytes, buckets, type Link } from "./buckets.ts";
export { buddies } from "./buddies.ts";
export { comparison } from "./by-cost.ts";
export { bytesOfText, textOfBytes } from "./bytes.ts";
export {
  type AskedParallel,
  chooseParallel,
  type Parallel,
  type ParallelOptions,
  type Prediction,
  statedIn,
} from "./choose.ts";
export { compress } from "./compress.ts";
export { type ContextOptions, context } from "./context.ts";
export { DEFAULT_FLOPS, totalOf } from "./cost.ts";
export { data, PACES } from "./data.ts";
export { DISK_SPEED, type Disk } from "./disk-cost.ts";
export { dividedCost } from "./divided-cost.ts";
export { type DividedWay, DividedWays } from "./divided-ways.ts";
export { type ExpertOptions, expertDivision, experts } from "./experts.ts";
export { OFFLOADS, type Offload, offload } from "./offload.ts";
export { outOfMemory } from "./out-of-memory.ts";
export { type Recompute, recompute } from "./recompute.ts";
export { type Attention, checkRings } from "./rings.ts";
export { secondsOfWork } from "./roofline.ts";
export { type GraphDivision } from "./sharding/localize.ts";
export { applyStrategies, type Strategy } from "./strategy.ts";
export { type TensorOptions, tensor, tensorDivision } from "./tensor.ts";
export { type WholeWork, wholeWork } from "./whole-work.ts";
export {
  type Axes,
  axesFor,
  checkWorkers,
  leastWorkers,
  statedWorkers,
  workersOfBatch,
  workersOfMachine,
} from "./workers.ts";
export { sharedUpdates, zero1, zero2, zero3 } from "./zero.ts";
