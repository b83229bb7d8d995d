export { Chaos, type ChaosOptions } from "./chaos.ts";
export { corruptNewest } from "./corrupt.ts";
export {
  DEFAULT_KINDS,
  type Fault,
  type FaultKind,
  faultsIn,
  KIND_HELP,
  kindsOf,
  lineOf,
} from "./faults.ts";
