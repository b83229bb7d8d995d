export {
  type AgentJob,
  type AgentReply,
  type AgentRequest,
  DEFAULT_AGENT_PORT,
  envelope,
  isPlace,
  openReply,
  openRequest,
  PIECE_BYTES,
  PIECES_AHEAD,
} from "./agent-messages.ts";
export {
  type Assignment,
  type ErrorMessage,
  errorMessage,
  type Formed,
  type FromWorker,
  isConsequence,
  type JobOverrides,
  type Meeting,
  openFromWorker,
  type ToWorker,
} from "./messages.ts";
