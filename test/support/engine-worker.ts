/**
 * A thread that creates an engine of its own, computes -x for the numbers that it is given, and
 * answers.
 */
import { parentPort, workerData } from "node:worker_threads";
import { createOrtEngine, evaluate } from "../../src/engine/index.ts";
import { newBuilder } from "../../src/ops/index.ts";
import { tensorFrom, toNumbers } from "../../src/tensor/index.ts";

const numbers = workerData as number[];
const engine = createOrtEngine({ threads: 2 });
const builder = newBuilder("negated");
const x = builder.input("x", { dtype: "float32", shape: [numbers.length] });
const graph = builder.build([builder.one("Neg", [x])]);
const inputs = { x: tensorFrom("float32", [numbers.length], numbers) };
const [result] = Object.values(await evaluate(engine, graph, inputs));
await engine.close();
parentPort?.postMessage(result && toNumbers(result));
