/**
 * A thin slice of `npm run bench -- same`: models in ways to share a step, against one process. And
 * the comparison finds what is wrong.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { type Cell, Comparison, judge } from "../benchmarks/same-cells.ts";
import { MODELS } from "../benchmarks/same-models.ts";
import { moved, type Trained, trained } from "../benchmarks/same-runs.ts";
import { nameOf, rootOf, WAYS } from "../benchmarks/same-ways.ts";
import { onDisk } from "./support/folder.ts";
import { engine } from "./support/shared-runs.ts";

after(() => engine.close());

const OPTIONS = { steps: 5, folder: onDisk() };
const INNOCENT = { losses: 1e-7, first: 1e-6, later: 1e-6, parameter: "weight" };
const SLICE = [
  ["DLRM", "data 2, shard 2"],
  ["ResNet", "pipeline 2"],
  ["export: GPT-like encoder", "data 2, tensor 2"],
] as const;

for (const [name, way] of SLICE) {
  test(`${name} on ${way} trains as one process does`, async () => {
    const model = MODELS.find((own) => own.name === name);
    const found = WAYS.find((own) => nameOf(own) === way);
    assert.ok(model !== undefined && found !== undefined);
    const { inProcesses: _, ...simulated } = found;
    const cell = await new Comparison(model, OPTIONS).cell(simulated);
    const verdict = judge(cell, INNOCENT);
    assert.equal(verdict.is, way === "data 2, tensor 2" ? "near" : "bits", verdict.why);
  });
}

test("a way that is refused says why", async () => {
  const [model] = MODELS.filter(({ name }) => name === "DLRM");
  assert.ok(model !== undefined);
  const way = { parallel: { context: 2 } };
  const cell = await new Comparison(model, OPTIONS).cell(way);
  const { is, why } = judge(cell, INNOCENT);
  assert.equal(is, "refused");
  assert.match(why ?? "", /no sequences in this model/);
});

test("wrong gradients, losses and bits are found", () => {
  const ran = (more: object): Cell => ({
    kind: "ran",
    apart: { losses: 1e-7, first: 1e-7, later: 1e-7, parameter: "weight" },
    root: "tensor 2",
    others: [],
    isWhole: false,
    ...more,
  });
  const verdict = (more: object) => judge(ran(more), INNOCENT).is;
  assert.equal(verdict({}), "near");
  const apart = { losses: 1e-7, first: 2e-5, later: 1e-7, parameter: "weight" };
  assert.equal(verdict({ apart }), "wrong");
  assert.equal(verdict({ apart: { ...apart, losses: 2e-4, first: 0 } }), "wrong");
  assert.equal(verdict({ others: ["weight"] }), "wrong");
  assert.equal(verdict({ processes: "real processes have other losses" }), "wrong");
  assert.equal(judge(ran({ apart }), { ...INNOCENT, later: 1e-5 }).is, "rounding");
});

test("a moved weight is seen in losses and gradients, and a root has no axis that it does not need", async () => {
  const [model] = MODELS.filter(({ name }) => name === "DLRM");
  assert.ok(model !== undefined);
  const one = await trained(model, {}, OPTIONS);
  const other: Trained = await trained(model, {}, { ...OPTIONS, from: moved(one.start) });
  assert.notDeepEqual(one.first, other.first);
  assert.notDeepEqual(one.bits, other.bits);
  const way = { parallel: { data: 2, tensor: 2 }, zero: 1, recompute: "blocks" } as const;
  assert.equal(nameOf(rootOf(way)), "tensor 2");
});
