/** A second process: maps memory by its name, adds one to each byte, and ends. */
import { openMemory } from "../../src/memory/index.ts";

const memory = openMemory(process.argv[2] ?? "");
const length = Number(process.argv[3]);
const bytes = memory.view(0, length);
for (let i = 0; i < length; i++) bytes[i] = (bytes[i] ?? 0) + 1;
memory.close();
