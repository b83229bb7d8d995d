export { countWaits, type WaitCounts } from "./counted.ts";
export { joinNodes, type NodesOptions } from "./nodes.ts";
export { fileOfCall, processSign, processState } from "./shared-memory/liveness.ts";
export type { SharedMemoryOptions } from "./shared-memory/options.ts";
export { joinSharedMemory } from "./shared-memory/shared-memory.ts";
export { type NetworkOptions, SimulatedNetwork, SimulatedTransport } from "./simulated/network.ts";
export { joinTcp, type TcpOptions } from "./tcp/tcp.ts";
export {
  type BarrierOptions,
  type GroupOptions,
  type MessageOptions,
  type SharedRegion,
  type Transport,
  type Waiting,
  type WaitOptions,
  waitForAll,
} from "./transport.ts";
