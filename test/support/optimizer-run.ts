/** Runs an optimizer's own program over given gradients, without a model or data. */
import type { Device } from "../../src/engine/index.ts";
import { type Instance, instantiate } from "../../src/execute/index.ts";
import { type Optimizer, rulesOf } from "../../src/optimizer/index.ts";
import { buildUpdates, type NormTask } from "../../src/plan/index.ts";
import { flatVectors } from "../../src/program/flat.ts";
import { refsOf } from "../../src/program/layout.ts";
import { planNorm, summaryOf } from "../../src/program/norm.ts";
import { ProgramBuilder } from "../../src/program/program.ts";
import { planUpdate, scalarsOf } from "../../src/program/update.ts";
import {
  byteLength,
  type DType,
  type Shape,
  scalar,
  tensorFrom,
  toNumbers,
} from "../../src/tensor/index.ts";

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

export type Numbers = Readonly<Record<string, readonly number[]>>;

export interface OptimizerRun {
  readonly shapes: Readonly<Record<string, Shape>>;
  readonly start: Numbers;
  readonly gradients: readonly Numbers[];
  readonly optimizer: Optimizer;
  readonly dtype?: DType;
  readonly clip?: number;
}

/** Returns the parameters after each step, and the norms of the gradients before clipping. */
export async function runOptimizer(
  engine: Device,
  { shapes, start, gradients, optimizer, dtype = "float64", clip }: OptimizerRun,
): Promise<{ trace: Numbers[]; norms: number[] }> {
  const program = new ProgramBuilder();
  const step = buildUpdates(
    Object.entries(shapes).map(([name, shape]) => ({
      name,
      type: { dtype, shape },
      decay: shape.length >= 2,
    })),
    optimizer,
  );
  const plan = flatVectors(step, optimizer);
  program.buffer("parameters", plan.parameters.byteLength);
  program.buffer("gradients", plan.gradients.byteLength);
  const loss = { dtype, shape: [1] };
  program.buffer("losses", byteLength(loss), "host");
  const losses = { buffer: "losses", byteOffset: 0, type: loss };
  const norm = planNorm(program, plan, {
    task: { ...NORM, clip },
    tail: undefined,
    sums: [losses],
  });
  const update = planUpdate(program, plan);
  const instance = await instantiate(engine, program);
  const write = (buffer: string, values: Numbers): void => {
    for (const [name, ref] of refsOf(plan.parameters, buffer)) {
      const tensor = tensorFrom(dtype, ref.type.shape, values[name] ?? []);
      engine.upload(instance.tensor(ref), tensor.bytes);
    }
  };
  instance.host("losses").bytes.set(scalar(dtype, 0).bytes);
  try {
    write("parameters", start);
    const trace: Numbers[] = [];
    const norms: number[] = [];
    for (const [index, values] of gradients.entries()) {
      write("gradients", values);
      for (const stage of norm.stages) await instance.run(stage);
      const { gradientNorm, gradientScale } = summaryOf(
        toNumbers(instance.hostTensor(norm.summary)),
      );
      norms.push(gradientNorm);
      const context = { step: index + 1, gradientScale };
      for (const [place, value] of scalarsOf(rulesOf(optimizer), update.scalars, context, 1)) {
        instance.hostTensor(place).bytes.set(value.bytes);
      }
      for (const stage of update.stages) await instance.run(stage);
      trace.push(await readParameters(instance, plan.parameters));
    }
    return { trace, norms };
  } finally {
    instance.close();
  }
}

async function readParameters(
  instance: Instance,
  layout: Parameters<typeof refsOf>[0],
): Promise<Numbers> {
  const found: Record<string, number[]> = {};
  for (const [name, ref] of refsOf(layout, "parameters")) {
    found[name] = toNumbers(await instance.device.download(instance.tensor(ref)));
  }
  return found;
}

/** Returns the largest difference between two runs, relative to 1. */
export function worstDifference(a: Numbers, b: Numbers): number {
  let worst = 0;
  for (const [name, values] of Object.entries(a)) {
    for (const [index, value] of values.entries()) {
      const other = b[name]?.[index] ?? Number.NaN;
      const difference = Math.abs(value - other) / Math.max(1, Math.abs(other));
      worst = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : Math.max(worst, difference);
    }
  }
  return worst;
}
