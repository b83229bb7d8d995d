import assert from "node:assert/strict";
import { test } from "node:test";
import { DEFAULT_COSTS } from "../collectives/index.ts";
import { createReferenceEngine, type Device } from "../engine/index.ts";
import { hashGraph } from "../graph/index.ts";
import { gpt } from "../nn/index.ts";
import { adamw } from "../optimizer/index.ts";
import { planOf } from "./planned.ts";
import { prepare } from "./prepare.ts";

const model = gpt({ layers: 2, width: 16, heads: 2, context: 8 }).build({
  batch: 1,
  mode: "train",
});

/** An engine that remembers the graphs that it has open. */
function watched() {
  const open = new Map<string, number>();
  const engine = createReferenceEngine();
  const count = (hash: string, by: number) => open.set(hash, (open.get(hash) ?? 0) + by);
  const compile: Device["compile"] = async (graph, options) => {
    const executable = await engine.compile(graph, options);
    const hash = hashGraph(graph);
    count(hash, 1);
    return Object.assign(Object.create(executable) as typeof executable, {
      close: () => {
        count(hash, -1);
        executable.close();
      },
    });
  };
  const device = new Proxy(engine, {
    get: (target, name) => {
      if (name === "compile") return compile;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? (value.bind(target) as unknown) : value;
    },
  });
  return { device, isOpen: (hash: string) => (open.get(hash) ?? 0) > 0 };
}

for (const [what, isApart, nodes] of [
  ["one machine", false, [[0, 1, 2, 3]]],
  ["four machines", true, [[0], [1], [2], [3]]],
] as const) {
  test(`a newcomer has the gradient's graphs before it knows that there are four workers on ${what}`, async () => {
    const { device: engine, isOpen } = watched();
    const optimizer = adamw({ learningRate: 1e-3 });
    const options = { engine, model, optimizer, microBatches: 4, parallel: { data: 4 } };
    const prepared = await prepare({ ...options, isApart });
    const group = { rank: 3, size: 4, costs: DEFAULT_COSTS, transport: { nodes } };
    const { plan } = planOf({ ...options, ranks: { group } }, prepared.step);
    const graphs = [...plan.graphs].filter(([name]) => name.startsWith("gradient"));
    assert.ok(graphs.length >= 1);
    const hashes = graphs.map(([, { graph }]) => hashGraph(graph));
    assert.deepEqual(
      hashes.filter((hash) => !isOpen(hash)),
      [],
    );
    prepared.close();
    assert.deepEqual(hashes.filter(isOpen), []);
    await engine.close();
  });
}
