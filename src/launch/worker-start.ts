/** What a worker's process begins with. */
import { loadModules } from "../start.ts";

// A Ctrl-C and the end of a terminal reach all of its processes, at any time; what they mean is for the launcher to say.
for (const name of ["SIGINT", "SIGHUP"] as const) process.on(name, () => undefined);

await loadModules(() => import("./worker.ts"));
