export { Agent, type AgentOptions, startAgent } from "./agent.ts";
