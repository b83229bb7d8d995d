import { createOrtEngine } from "../src/engine/index.ts";
import { adamw } from "../src/optimizer/index.ts";
import { ProgramBuilder } from "../src/program/program.ts";
import { planParameters } from "../src/program/plan-parameters.ts";
import { planUpdate } from "../src/program/update.ts";
import { planNorm } from "../src/program/norm.ts";
import { instantiate } from "../src/program/instance.ts";
import { sumStage } from "../src/program/gradient.ts";
const threads = Number(process.argv[2] ?? 1);
const engine = createOrtEngine({ threads });
const n = 10_700_000;
const b = new ProgramBuilder();
const params = Array.from({ length: 30 }, (_, i) => ({ name: `w${i}`, type: { dtype: "float32" as const, shape: [Math.round(n / 30)] }, decay: i % 2 === 0 }));
const plan = planParameters(params, adamw());
for (const name of ["parameters", "gradients","gradients.1"]) b.buffer(name, plan.gradients.byteLength);
b.buffer("losses", 4);
const update = planUpdate(b, plan);
const norm = planNorm(b, plan, { microBatches: 1, clip: 1, losses: { buffer: "losses", byteOffset: 0, type: { dtype: "float32", shape: [1] } } });
const sum = sumStage(b, plan.gradients, {from:"gradients.1",into:"gradients"});
let t = performance.now();
const inst = await instantiate(engine, b);
console.log("threads", threads, "tile", plan.gradients.tile, "compile ms", (performance.now() - t).toFixed(0), "runs", update.stages[0]!.runs.length);
for (const name of ["parameters", "gradients","gradients.1"]) { const by = inst.buffer(name).bytes; const f = new Float32Array(by.buffer, by.byteOffset, by.byteLength / 4); for (let i = 0; i < f.length; i++) f[i] = Math.sin(i) * 0.1; }
async function bench(name: string, body: () => Promise<void>) {
  for (let i = 0; i < 3; i++) await body();
  const times: number[] = [];
  for (let i = 0; i < 10; i++) { t = performance.now(); await body(); times.push(performance.now() - t); }
  times.sort((a, c) => a - c);
  console.log(name, "ms", times[5]!.toFixed(2), "min", times[0]!.toFixed(2), "ns/elem", (times[5]! * 1e6 / n).toFixed(3));
}
await bench("update", async () => { update.writeScalars(inst, { step: 5, gradientScale: 1 }, 1); for (const s of update.stages) await inst.run(s); });
await bench("norm", async () => { for (const s of norm.stages) await inst.run(s); });
await bench("sum", async () => { await inst.run(sum); });
inst.close();
await engine.close();
