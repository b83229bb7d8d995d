export { axisOf, createMesh, formatMesh, groupOf, type Mesh } from "./mesh.ts";
export { formatPlacement, type Placement, REPLICATED, shardAxes } from "./placement.ts";
export { evenTopology, isWithinNode, regularTopology, type Topology } from "./topology.ts";
