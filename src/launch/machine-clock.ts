/** A clock that all processes of a machine share, and that nobody sets. */
export function machineClock(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** When this process was started, by that clock, in milliseconds. */
export function startOfProcess(): number {
  return machineClock() - performance.now();
}
