export { axisOf, createMesh, formatMesh, groupOf, type Mesh, type MeshAxis } from "./mesh.ts";
export {
  type AxisPlacement,
  formatOnAxis,
  formatPlacement,
  isFlatShard,
  isSamePlacement,
  isShard,
  type Placement,
  REPLICATED,
  type Shard,
  sectionsOf,
  shapeOnAxis,
  shardAxes,
} from "./placement.ts";
export {
  isSampleAxis,
  modelAxes,
  type Peers,
  PIPELINE,
  peersOf,
  placeOnAxis,
  replicaSize,
} from "./replicas.ts";
export { evenTopology, isWithinNode, regularTopology, type Topology } from "./topology.ts";
