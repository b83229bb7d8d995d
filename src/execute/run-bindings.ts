/** Runs the bindings of a stage, in the way that the stage says. */
import { setImmediate } from "node:timers/promises";
import type { Binding } from "../engine/index.ts";
import type { RunStage } from "../program/index.ts";
import { inLanes } from "./lanes.ts";

export interface RunBindings {
  readonly mode: RunStage["mode"];
  /** The threads of the device. */
  readonly threads: number;
  readonly signal?: AbortSignal | undefined;
  /** Called before each run, with its place in the stage. Returns what is called after it. */
  readonly around?: (run: number) => () => void;
}

/** The event loop is served at least this often while a thread computes on it. */
const TURN_MS = 1;
let turnedAt = 0;

async function turnIfDue(): Promise<void> {
  if (performance.now() - turnedAt < TURN_MS) return;
  await setImmediate();
  turnedAt = performance.now();
}

/** @param bindings with their places in the stage. After a failure none is still running. */
export async function runBindings(
  bindings: readonly (readonly [number, Binding])[],
  { mode, threads, signal, around }: RunBindings,
): Promise<void> {
  const here = ([run, binding]: readonly [number, Binding]) => {
    const end = around?.(run);
    binding.runSync();
    end?.();
  };
  if (mode === "small") return bindings.forEach(here);
  if (mode === "sweep" && threads === 1) {
    // Milliseconds of work each: to hand it to another thread and hear of its end costs too much.
    for (const own of bindings) {
      await turnIfDue();
      signal?.throwIfAborted();
      here(own);
    }
    return;
  }
  const options = signal === undefined ? {} : { signal };
  await inLanes(bindings, mode === "ordered" ? 1 : threads, async ([run, binding]) => {
    const end = around?.(run);
    await binding.run(options);
    end?.();
  });
}
