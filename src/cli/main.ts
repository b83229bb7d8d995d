#!/usr/bin/env node
/** The command `lockstep`. */
import { loadModules } from "../start.ts";

await loadModules(() => import("./process.ts"));
