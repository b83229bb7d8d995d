#!/usr/bin/env node
/** Entry point of the command `lockstep`. */
import { loadModules } from "../start.ts";

await loadModules(() => import("./process.ts"));
