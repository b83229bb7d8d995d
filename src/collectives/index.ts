export {
  type Choice,
  type CostModel,
  chooseSchedule,
  DEFAULT_COSTS,
  estimate,
  formatCosts,
  type LinkCosts,
} from "./cost.ts";
export {
  Group,
  GroupBuffer,
  type GroupSettings,
  type Prepared,
  type PrepareOptions,
} from "./group.ts";
export { measureCosts } from "./measure.ts";
export { type Combination, inOrder, REDUCED_TYPES, type Reduction } from "./reduction.ts";
export { type Algorithm, type Collective, type Member, partsFor, schedulesFor } from "./request.ts";
export {
  elementsSent,
  evenParts,
  type Part,
  partsOf,
  type Schedule,
  type Span,
  type Step,
} from "./schedule.ts";
export {
  Communicator,
  type ThreadBuffer,
  ThreadGroup,
  type ThreadPrepared,
  type ThreadRequestOptions,
} from "./thread/communicator.ts";
export type { JoinSettings, Meeting } from "./thread/messages.ts";
