/** Who a process is: its id alone is used again one day, with its start it is not. */
import fs from "node:fs";

export interface ProcessIdentity {
  readonly pid: number;
  /** Ticks since the machine started; 0 where the system does not say. */
  readonly start: number;
}

export function ownIdentity(): ProcessIdentity {
  return { pid: process.pid, start: statusOf(process.pid)?.start ?? 0 };
}

/** Whether this very process runs. A zombie does not. */
export function isAlive({ pid, start }: ProcessIdentity): boolean {
  if (pid === process.pid) return true;
  if (start !== 0) {
    const status = statusOf(pid);
    return status !== undefined && status.start === start && !"ZXx".includes(status.state);
  }
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}

function statusOf(pid: number): { state: string; start: number } | undefined {
  try {
    const text = fs.readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" "); // from the third on
    return { state: fields[0] ?? "X", start: Number(fields[19]) };
  } catch {
    return undefined;
  }
}
