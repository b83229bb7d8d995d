export {
  type AgentJob,
  type AgentReply,
  type AgentRequest,
  DEFAULT_AGENT_PORT,
  envelope,
  openRequest,
} from "./agent-messages.ts";
export { availableCores } from "./cores.ts";
export { type HostsOptions, launchOnHosts } from "./hosts.ts";
export { type LaunchOptions, launchLocal } from "./local.ts";
export { errorMessage } from "./messages.ts";
export { WorkerProcess } from "./process.ts";
export { endProcess, outliveOutput, outlivesTerminal } from "./survive.ts";
