export {
  type AgentJob,
  type AgentReply,
  type AgentRequest,
  DEFAULT_AGENT_PORT,
  envelope,
  openRequest,
  PIECE_BYTES,
  PIECES_AHEAD,
} from "./agent-messages.ts";
export { availableCores } from "./cores.ts";
export { type HostsOptions, launchOnHosts } from "./hosts.ts";
export { type LaunchOptions, launchLocal } from "./local.ts";
export { errorMessage, type JobOverrides } from "./messages.ts";
export { WorkerProcess } from "./process.ts";
export { endProcess, outliveOutput, outlivesTerminal } from "./survive.ts";
