/**
 * Runs tasks by readiness: a segment or a collective starts as soon as what it needs is done. Overlap of computation and
 * communication is nothing more than that. Collectives of one axis start in the order of the program, on every
 * rank alike; no wait is without a deadline.
 */
import { LockstepError } from "../errors.ts";
import type { CollectiveTask, SegmentTask, Task } from "./partition.ts";

export interface Executor {
  segment(task: SegmentTask, signal: AbortSignal): Promise<void>;
  /** Off the thread that computes. */
  collective(task: CollectiveTask, signal: AbortSignal): Promise<void>;
}

export interface ExecuteOptions {
  /** Segments at once; each may use all threads. Default: 1. */
  readonly lanes?: number;
  /** Of each collective, in milliseconds. Without it, only the deadlines of the collectives themselves end their waits. */
  readonly deadlineMs?: number;
  readonly signal?: AbortSignal;
}

/**
 * Resolves when all tasks are done. After a failure nothing new is started, what runs is aborted, and this rejects with the
 * first error when all of it has ended. @throws DEADLINE
 */
export async function executeTasks(
  tasks: readonly Task[],
  executor: Executor,
  options: ExecuteOptions,
): Promise<void> {
  const { lanes = 1, deadlineMs } = options;
  const ended = new AbortController();
  const signal =
    options.signal === undefined ? ended.signal : AbortSignal.any([options.signal, ended.signal]);
  const waiting = new Set(tasks.keys());
  const done = new Set<number>();
  const running = new Map<number, Promise<void>>();
  const busy = new Set<string>(); // axes with a collective under way
  let failure: { readonly error: unknown } | undefined;
  let computing = 0;

  const start = (index: number, task: Task): void => {
    waiting.delete(index);
    if (task.kind === "segment") computing += 1;
    else busy.add(task.axis);
    const work =
      task.kind === "segment"
        ? executor.segment(task, signal)
        : withDeadline(task, deadlineMs, (limit) => executor.collective(task, limit), signal);
    const end = work.then(
      () => void done.add(index),
      (error: unknown) => {
        failure ??= { error };
        ended.abort(error);
      },
    );
    running.set(
      index,
      end.then(() => {
        running.delete(index);
        if (task.kind === "segment") computing -= 1;
        else busy.delete(task.axis);
      }),
    );
  };

  for (;;) {
    if (options.signal?.aborted === true) failure ??= { error: options.signal.reason };
    if (failure === undefined) {
      const blocked = new Set(busy); // axes whose next collective is not this one
      for (const index of [...waiting].sort((a, b) => a - b)) {
        const task = tasks[index] as Task;
        const isReady = task.after.every((needed) => done.has(needed));
        const isFree = task.kind === "segment" ? computing < lanes : !blocked.has(task.axis);
        if (isReady && isFree) start(index, task);
        if (task.kind === "collective") blocked.add(task.axis);
      }
    }
    if (running.size === 0) break;
    await Promise.race(running.values());
  }
  if (failure !== undefined) throw failure.error;
}

async function withDeadline(
  task: CollectiveTask,
  deadlineMs: number | undefined,
  body: (signal: AbortSignal) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  if (deadlineMs === undefined) return body(signal);
  const limit = new AbortController();
  const late = new LockstepError(
    "DEADLINE",
    `The collective "${task.name}" (${task.bytes} bytes) did not end within ${deadlineMs} ms.`,
    { fields: { task: task.name, deadlineMs } },
  );
  const timer = setTimeout(() => limit.abort(late), deadlineMs);
  try {
    const both = AbortSignal.any([signal, limit.signal]);
    const stopped = new Promise<never>((_, reject) => {
      both.addEventListener("abort", () => reject(both.reason as Error), { once: true });
    });
    await Promise.race([body(both), stopped]);
  } finally {
    clearTimeout(timer);
  }
}
