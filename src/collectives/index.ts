export { type Collective, type Part, partsOf } from "./collective.ts";
export { Group, GroupBuffer, type Prepared, type PrepareOptions } from "./group.ts";
export { DEFAULT_COSTS, measureCosts, tellNumbers } from "./measure.ts";
export { scheduleOf } from "./schedule.ts";
