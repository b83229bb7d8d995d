/** The first module of a worker's process. */
import { loadModules } from "../start.ts";

// Ctrl-C and the end of a terminal send a signal to all processes of the terminal. The launcher
// decides what it means, so workers ignore it.
for (const name of ["SIGINT", "SIGHUP"] as const) process.on(name, () => undefined);

await loadModules(() => import("./worker.ts"));
