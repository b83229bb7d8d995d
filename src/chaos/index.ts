export { Chaos, type ChaosOptions } from "./chaos.ts";
export { corruptNewest } from "./corrupt.ts";
export { type Fault, type FaultKind, faultsIn, KINDS, kindsOf, lineOf } from "./faults.ts";
