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
    // A millisecond of work each: to hand it to another thread and hear of its end would take longer.
    for (const [index, own] of bindings.entries()) {
      if (index > 0) await setImmediate();
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
