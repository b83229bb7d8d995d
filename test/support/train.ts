/** Trains a run in memory, without its folder, for tests of what it learns. */
import { openData, positionsOfStep, sampleOrder } from "../../src/data/index.ts";
import { type Device, evaluate } from "../../src/engine/index.ts";
import { type Graph, typeOf } from "../../src/graph/index.ts";
import { type Run } from "../../src/run/index.ts";
import { byteLength, type Tensor, toNumbers } from "../../src/tensor/index.ts";
import { createTrainer, type Trainer } from "../../src/train/index.ts";
import { sliceTo } from "./model.ts";

export interface Trained {
  /** The loss of each step. */
  readonly losses: readonly number[];
  /** The model's outputs on held-out samples, or on training samples if nothing is held out. */
  readonly outputs: Readonly<Record<string, number[]>>;
}

export interface TrainRunOptions {
  readonly engine: Device;
  /** The number of held-out samples to look at. Default: 1,000, or all. */
  readonly samples?: number;
  /** Default: all. */
  readonly outputs?: readonly string[];
}

export async function trainRun(run: Run, options: TrainRunOptions): Promise<Trained> {
  const { engine } = options;
  const model = run.model.build({ batch: run.batch / run.microBatches, mode: "train" });
  const inputs = model.batch.map((name) => ({ name, type: typeOf(model.graph, name) }));
  const data = await openData(run.data, { inputs, baseDir: ".", batch: run.batch });
  const { microBatches, seed, schedule, steps, optimizer, clipNorm: clip } = run;
  const settings = { model, optimizer, schedule, steps, clip, microBatches, seed };
  const trainer = await createTrainer({ engine, ...settings });
  try {
    const order = sampleOrder(data.train.length, seed);
    const losses: number[] = [];
    for (let step = 0; step < steps; step++) {
      const positions = positionsOfStep(step, run.batch);
      const indices = order.indices(positions.start, positions.end);
      const fill = (into: Readonly<Record<string, Tensor>>) => data.train.read(indices, into);
      losses.push((await trainer.step({ positions, fill })).loss);
    }
    const held = data.validation ?? data.train;
    const count = Math.min(options.samples ?? 1000, held.length);
    const { graph, names } = evaluationGraph(run, count, options.outputs);
    const batch: Record<string, Tensor> = {};
    for (const name of names) {
      const type = typeOf(graph, name);
      batch[name] = { ...type, bytes: new Uint8Array(byteLength(type)) };
    }
    await held.read(
      Array.from({ length: count }, (_, index) => index),
      batch,
    );
    const results = await evaluate(engine, graph, { ...batch, ...(await copies(trainer)) });
    const outputs = Object.entries(results).map(([name, tensor]) => [name, toNumbers(tensor)]);
    return { losses, outputs: Object.fromEntries(outputs) as Trained["outputs"] };
  } finally {
    trainer.close();
    await data.close();
  }
}

function evaluationGraph(
  run: Run,
  batch: number,
  outputs: readonly string[] | undefined,
): { graph: Graph; names: readonly string[] } {
  const model = run.model.build({ batch, mode: "eval" });
  const wanted = outputs ?? [model.loss, ...Object.values(model.outputs)];
  return { graph: sliceTo(model.graph, wanted), names: model.batch };
}

async function copies(trainer: Trainer): Promise<Record<string, Tensor>> {
  const { parameters, states } = await trainer.read();
  const all = Object.entries({ ...parameters, ...states });
  return Object.fromEntries(
    all.map(([name, { dtype, shape, bytes }]) => [
      name,
      { dtype, shape, bytes: Uint8Array.from(bytes) },
    ]),
  );
}

/** Returns the mean of the last `count` numbers. */
export function lastMean(numbers: readonly number[], count: number): number {
  const last = numbers.slice(-count);
  return last.reduce((a, b) => a + b, 0) / last.length;
}
