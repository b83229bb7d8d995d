/**
 * One process that measures the sweeps over flat vectors, and prints one JSON object. Started by
 * `optimizer.ts`.
 */
import { createOrtEngine } from "../src/engine/index.ts";
import { instantiate } from "../src/execute/index.ts";
import { adamw, rulesOf } from "../src/optimizer/index.ts";
import { buildUpdates, type NormTask } from "../src/plan/index.ts";
import { flatVectors } from "../src/program/flat.ts";
import { planNorm } from "../src/program/norm.ts";
import { ProgramBuilder, type Stage } from "../src/program/program.ts";
import { wholeSpans } from "../src/program/spans.ts";
import { planUpdate, scalarsOf } from "../src/program/update.ts";
import { planWaves, type Wave, waveStage } from "../src/program/waves.ts";
import type { DType } from "../src/tensor/index.ts";

/** The best of all repeats, in nanoseconds per element. */
export interface OptimizerMeasurement {
  readonly update: number;
  readonly norm: number;
  readonly sum: number;
}

interface Request {
  readonly threads: number;
  readonly elements: number;
  readonly repeats: number;
}

const DTYPE: DType = "float32";

/** A loss that is zero, because only the gradients matter. */
const NORM: NormTask = {
  kind: "norm",
  name: "norm",
  terms: [{ value: "loss", factor: 1, trained: true }],
  tail: undefined,
  counts: [],
  clip: undefined,
  inputs: [],
  outputs: [],
};

console.log(JSON.stringify(await measure(JSON.parse(process.argv[2] ?? "{}") as Request)));

async function measure({ threads, elements, repeats }: Request): Promise<OptimizerMeasurement> {
  const engine = createOrtEngine({ threads });
  const program = new ProgramBuilder();
  const parameters = Array.from({ length: 30 }, (_, i) => ({
    name: `parameter${i}`,
    type: { dtype: DTYPE, shape: [Math.round(elements / 30)] },
    decay: i % 2 === 0,
  }));
  const optimizer = adamw();
  const plan = flatVectors(buildUpdates(parameters, optimizer), optimizer);
  const vectors = ["parameters", "gradients", "gradients.1"];
  for (const name of vectors) program.buffer(name, plan.gradients.byteLength, "host");
  program.buffer("losses", 4);
  const losses = { buffer: "losses", byteOffset: 0, type: { dtype: DTYPE, shape: [1] } };
  const update = planUpdate(program, plan);
  const norm = planNorm(program, plan, {
    task: { ...NORM, clip: 1 },
    tail: undefined,
    sums: [losses],
  });
  const [wave] = planWaves([{ first: 0, count: 2 }], { perWave: 2, isInPlace: true }).waves;
  const sum = waveStage(program, wave as Wave, wholeSpans(plan.gradients));
  const instance = await instantiate(engine, program);
  for (const name of vectors) {
    const { buffer, byteOffset, byteLength } = instance.host(name).bytes;
    // The values are small, so that sums stay finite over all repeats.
    new Float32Array(buffer, byteOffset, byteLength / 4).fill(1e-3);
  }
  const context = { step: 5, gradientScale: 1 };
  for (const [place, value] of scalarsOf(rulesOf(optimizer), update.scalars, context, 1)) {
    instance.hostTensor(place).bytes.set(value.bytes);
  }
  const best = async (stages: readonly Stage[]): Promise<number> => {
    let least = Number.POSITIVE_INFINITY;
    for (let i = 0; i < repeats; i++) {
      const start = performance.now();
      for (const stage of stages) await instance.run(stage);
      least = Math.min(least, performance.now() - start);
    }
    return (least * 1e6) / elements;
  };
  const result = {
    update: await best(update.stages),
    norm: await best(norm.stages),
    sum: await best([sum]),
  };
  instance.close();
  await engine.close();
  return result;
}
