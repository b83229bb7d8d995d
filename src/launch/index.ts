export { atMost, END_MS } from "./at-most.ts";
export { availableCores } from "./cores.ts";
export type { WorkerEnd } from "./handle.ts";
export { type HostsOptions, launchOnHosts } from "./hosts.ts";
export { type LaunchOptions, launchLocal } from "./local.ts";
export type { LocalProcess, LocalWorker, LocalWorkers } from "./local-workers.ts";
export { WORKER_FLAGS, WorkerProcess } from "./process.ts";
export { Signs } from "./signs.ts";
export { endProcess, outliveOutput, outlivesTerminal } from "./survive.ts";
