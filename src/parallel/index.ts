export {
  bucketBytes,
  type DataParallelOptions,
  dataParallel,
  type Link,
  planBuckets,
} from "./data.ts";
export {
  axisOf,
  createMesh,
  formatMesh,
  groupOf,
  type Mesh,
  type MeshAxis,
  placeOn,
} from "./mesh.ts";
export { applyStrategies, describeStrategies, type Strategy } from "./strategy.ts";
