export {
  Agent,
  type AgentLimits,
  type AgentOptions,
  type JoinOptions,
  joinRun,
  startAgent,
} from "./agent.ts";
