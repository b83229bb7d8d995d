/**
 * Runs tasks as they become ready: a task starts when the tasks that it needs are done and its lane
 * is free. This is how communication overlaps computation. Tasks of one lane start in the order of
 * the program, which is the same on every rank.
 */
import type { Task } from "../program/index.ts";

export interface ExecuteOptions {
  readonly signal?: AbortSignal | undefined;
}

/**
 * Resolves when all tasks are done. After a failure no task starts, the signal of the running tasks
 * is aborted, and the promise rejects with the first error when they have ended.
 */
export async function executeTasks(
  tasks: readonly Task[],
  run: (task: Task, signal: AbortSignal) => Promise<void>,
  options: ExecuteOptions = {},
): Promise<void> {
  const ended = new AbortController();
  const { signal } = ended;
  // Not AbortSignal.any: a signal that lives long would keep a little of each step.
  const end = () => ended.abort(options.signal?.reason);
  if (options.signal?.aborted === true) end();
  options.signal?.addEventListener("abort", end, { once: true });
  const waiting = new Set(tasks.keys());
  const done = new Set<number>();
  const running = new Map<number, Promise<void>>();
  const busy = new Set<string>();
  let failure: { readonly error: unknown } | undefined;

  const start = (index: number, task: Task): void => {
    waiting.delete(index);
    busy.add(task.lane);
    const result = run(task, signal).then(
      () => void done.add(index),
      (error: unknown) => {
        failure ??= { error };
        ended.abort(error);
      },
    );
    running.set(
      index,
      result.then(() => {
        running.delete(index);
        busy.delete(task.lane);
      }),
    );
  };

  for (;;) {
    if (signal.aborted) failure ??= { error: signal.reason };
    if (failure === undefined) {
      const taken = new Set(busy); // lanes that are busy, or have an earlier task that still waits
      for (const index of waiting) {
        const task = tasks[index] as Task;
        const isReady = task.after.every((needed) => done.has(needed));
        if (isReady && !taken.has(task.lane)) start(index, task);
        taken.add(task.lane);
      }
    }
    if (running.size === 0) break;
    await Promise.race(running.values());
  }
  options.signal?.removeEventListener("abort", end);
  if (failure !== undefined) throw failure.error;
}
