/** Compiles the graphs of a program. */
import type { Device, Executable } from "../engine/index.ts";
import type { GraphSpec } from "../program/index.ts";
import { inLanes } from "./lanes.ts";

/** Returns the compiled graphs by name. After a failure none stays open. */
export async function compileAll(
  device: Device,
  graphs: Iterable<readonly [string, GraphSpec]>,
): Promise<Map<string, Executable>> {
  const compiled = new Map<string, Executable>();
  try {
    await inLanes([...graphs], device.threads, async ([name, { graph, threads }]) => {
      const options = threads === "all" ? {} : { threads };
      compiled.set(name, await device.compile(graph, options));
    });
  } catch (error) {
    for (const executable of compiled.values()) executable.close();
    throw error;
  }
  return compiled;
}
