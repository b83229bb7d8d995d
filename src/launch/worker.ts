/** What a worker's process begins with. */
import { loadModules } from "../start.ts";

await loadModules(() => import("./worker-process.ts"));
