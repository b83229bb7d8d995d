/** Waits for agents, each of which may fail in its own way. */
import { LockstepError } from "../errors.ts";
import type { JobFiles } from "../job/index.ts";
import type { AgentJob, Standing } from "../protocol/index.ts";
import { atMost } from "./at-most.ts";
import type { RemoteAgent } from "./remote.ts";

/**
 * Waits until an agent has taken the job. The deadline starts anew whenever a part of the job is
 * sent to it.
 */
export async function within(deadlineMs: number, agent: RemoteAgent): Promise<void> {
  const { name, accepted } = agent;
  for (;;) {
    const left = agent.sentAt + deadlineMs - performance.now();
    if (left > 0 && (await atMost(left, accepted)) !== "late") return;
    if (left > 0) continue;
    throw late(name, deadlineMs);
  }
}

/**
 * Asks an agent for the workers of the run, which an earlier launcher has left; one that has none
 * gets the job.
 */
export async function takenFrom(
  agent: RemoteAgent,
  { message, files }: { readonly message: AgentJob; readonly files: JobFiles },
  deadlineMs: number,
): Promise<readonly Standing[]> {
  try {
    agent.takeOver(message.group, message.term ?? 0);
    if ((await atMost(deadlineMs, agent.takenOver)) === "late") throw late(agent.name, deadlineMs);
    const taken = await agent.takenOver;
    if (taken !== undefined) return taken;
    agent.offer(message, files);
    await within(deadlineMs, agent);
    return [];
  } catch (error) {
    agent.leave();
    throw error;
  }
}

function late(name: string, deadlineMs: number): LockstepError {
  const text = `${name} did not take the job within ${deadlineMs} ms.`;
  return new LockstepError("DEADLINE", text, { fields: { host: name } });
}

/** Waits for all, so that ten unreachable hosts are reported together. */
export async function all<Result>(waits: readonly Promise<Result>[]): Promise<Result[]> {
  const ends = await Promise.allSettled(waits);
  const failures = ends.flatMap((end) =>
    end.status === "rejected" ? [end.reason as unknown] : [],
  );
  if (failures.length > 0) throw oneOf(failures);
  return ends.flatMap((end) => (end.status === "fulfilled" ? [end.value] : []));
}

export function oneOf(failures: readonly unknown[]): unknown {
  const [first] = failures;
  if (!(first instanceof LockstepError) || failures.length === 1) return first;
  const texts = failures.map((error) => (error instanceof Error ? error.message : String(error)));
  return new LockstepError(first.code, texts.join("\n"), { fields: first.fields });
}
