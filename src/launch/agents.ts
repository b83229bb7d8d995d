/** Waits for agents, each of which may fail in its own way. */
import { setTimeout as delay } from "node:timers/promises";
import { LockstepError } from "../errors.ts";
import type { JobFiles } from "../job/index.ts";
import { dialLine, type Line } from "../net/index.ts";
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

/** How long an agent that comes back may take to end its old job, and to take this one. */
export const RETAKE_MS = 60_000;
const FIRST_PAUSE_MS = 250;
const MOST_PAUSE_MS = 10_000;

export interface Redial {
  readonly secrets: { readonly token: string; readonly tls: boolean };
  readonly offer: { readonly message: AgentJob; readonly files: JobFiles };
  /** Aborting it ends the dialing. */
  readonly signal: AbortSignal;
  readonly agentOn: (line: Line) => RemoteAgent;
  readonly notice: (text: string) => void;
}

/**
 * Dials an agent until it has the job again. Returns undefined when that is not wanted any more.
 * @throws FENCED if another launcher leads the run
 */
export async function redialed(
  name: string,
  { secrets, offer, signal, agentOn, notice }: Redial,
): Promise<RemoteAgent | undefined> {
  let told = "";
  for (let pause = FIRST_PAUSE_MS; !signal.aborted; pause *= 2) {
    await delay(Math.min(pause, MOST_PAUSE_MS), undefined, { signal }).catch(() => undefined);
    let agent: RemoteAgent | undefined;
    try {
      const line = await dialLine({ address: name, ...secrets, deadlineMs: RETAKE_MS, signal });
      agent = agentOn(line);
      agent.offer(offer.message, offer.files);
      await within(RETAKE_MS, agent);
      if (!agent.isOver) return agent;
    } catch (error) {
      agent?.end();
      if (signal.aborted) return undefined;
      if (isFenced(error)) throw error;
      const text = error instanceof Error ? error.message : String(error);
      const isAbsent = error instanceof LockstepError && error.code === "DEADLINE";
      if (!isAbsent && text !== told) notice(`${text} It is dialed again.`);
      told = text;
    }
  }
  return undefined;
}

/** Whether an error says that another launcher leads the run by now. */
export function isFenced(error: unknown): error is LockstepError {
  return error instanceof LockstepError && error.code === "FENCED";
}

/** A name for a machine. Several may join from one address. */
export function freeName(host: string, taken: ReadonlySet<string>): string {
  for (let number = 1; ; number++) {
    const name = number === 1 ? host : `${host} (${number})`;
    if (!taken.has(name)) return name;
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
