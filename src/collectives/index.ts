export { type Collective, type Part, partsOf } from "./collective.ts";
export {
  Group,
  GroupBuffer,
  type GroupSettings,
  type Prepared,
  type PrepareOptions,
} from "./group.ts";
export { DEFAULT_COSTS, type LinkCosts, measureCosts, tellNumbers } from "./measure.ts";
export { type Member, type Message, type Span, type Step, scheduleOf } from "./schedule.ts";
