/** What native code still uses must outlive the JavaScript handles on it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { createOrtEngine, evaluate } from "../src/engine/index.ts";
import { mul } from "../src/functional/index.ts";
import { newBuilder } from "../src/ops/index.ts";
import { tensorFrom, toNumbers } from "../src/tensor/index.ts";

test("an engine keeps working after its handles were collected, although koffi unloads a library with its last handle", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const engine = createOrtEngine({ threads: 1 });
  const b = newBuilder("double");
  const graph = b.build([mul(b.input("x", { dtype: "float32", shape: [2] }), 2)]);
  for (let round = 0; round < 5; round++) {
    const result = await evaluate(engine, graph, { x: tensorFrom("float32", [2], [round, 1]) });
    assert.deepEqual(Object.values(result).flatMap(toNumbers), [2 * round, 2]);
    collect();
    await new Promise((resolve) => setImmediate(resolve));
  }
  await engine.close();
});
