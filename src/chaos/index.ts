export { Chaos, type ChaosOptions } from "./chaos.ts";
export { type Fault, type FaultKind, faultsIn, KINDS, kindsOf, lineOf } from "./faults.ts";
