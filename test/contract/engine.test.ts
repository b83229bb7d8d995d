/** Runs the contract of engines over each of them. */
import { createOrtEngine, createReferenceEngine } from "../../src/engine/index.ts";
import { engineContract } from "./engine-contract.ts";

engineContract("ort-native on the shared pool", { create: () => createOrtEngine({ threads: 2 }) });
engineContract("ort-native on one thread", { create: () => createOrtEngine({ threads: 1 }) });
engineContract("reference", { create: createReferenceEngine });
