/**
 * Runs tasks by readiness: a task starts as soon as what it needs is done and its lane is free. Overlap of computation and
 * communication is nothing more than that. Tasks of one lane start in the order of the program, on every rank alike.
 */
import type { Task } from "../program/index.ts";

export interface ExecuteOptions {
  readonly signal?: AbortSignal | undefined;
}

/**
 * Resolves when all tasks are done. After a failure nothing new is started, what runs is told by the signal, and this rejects with the
 * first error when all of it has ended.
 */
export async function executeTasks(
  tasks: readonly Task[],
  run: (task: Task, signal: AbortSignal) => Promise<void>,
  options: ExecuteOptions = {},
): Promise<void> {
  const ended = new AbortController();
  const signal =
    options.signal === undefined ? ended.signal : AbortSignal.any([options.signal, ended.signal]);
  const waiting = new Set(tasks.keys());
  const done = new Set<number>();
  const running = new Map<number, Promise<void>>();
  const busy = new Set<string>();
  let failure: { readonly error: unknown } | undefined;

  const start = (index: number, task: Task): void => {
    waiting.delete(index);
    busy.add(task.lane);
    const end = run(task, signal).then(
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
        busy.delete(task.lane);
      }),
    );
  };

  for (;;) {
    if (options.signal?.aborted === true) failure ??= { error: options.signal.reason };
    if (failure === undefined) {
      const taken = new Set(busy); // lanes whose next task is under way or comes before
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
  if (failure !== undefined) throw failure.error;
}
