/** The first module of a worker's process. It loads all others. */

// Ctrl-C and the end of a terminal send a signal to all processes of the terminal. The launcher
// decides what it means, so workers ignore it, also while they load.
for (const name of ["SIGINT", "SIGHUP"] as const) process.on(name, () => undefined);

await import("./worker.ts");
