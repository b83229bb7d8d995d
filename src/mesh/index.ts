export {
  axisOf,
  createMesh,
  formatMesh,
  groupOf,
  type Mesh,
  type MeshAxis,
  placeOn,
} from "./mesh.ts";
export {
  type AxisPlacement,
  formatPlacement,
  type Placement,
  REPLICATED,
  shardAxes,
} from "./placement.ts";
export { evenTopology, isWithinNode, regularTopology, type Topology } from "./topology.ts";
