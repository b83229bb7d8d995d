/**
 * Evaluates a model on held-out samples: forward passes over batches of them, and the loss and
 * measures of all samples together.
 */
import { typeOf } from "../graph/index.ts";
import type { Model } from "../nn/index.ts";
import {
  fieldsOf,
  type Measure,
  type MeasuresPlan,
  planMeasures,
  resized,
  sizeOf,
  vectorGraph,
  vectorType,
} from "../plan/index.ts";
import { byteLength, elementCount, isFloat } from "../tensor/index.ts";
import { evaluationSumsBuffer, fieldBuffer } from "./buffers.ts";
import type { ProgramBuilder, Run, RunStage, TensorRef } from "./program.ts";

/** Batches of one size. */
export interface EvaluationBatch {
  readonly samples: number;
  readonly fields: ReadonlyMap<string, TensorRef>;
  /** After a run: the terms of all measures, one after the other. */
  readonly sums: TensorRef;
  /** For each number in `sums`: the number of all samples is the sum of factor times number. */
  readonly factors: readonly number[];
  readonly graph: string;
  /** Inputs of the graph. */
  readonly inputs: readonly string[];
}

export interface EvaluationPlan {
  /** Of all batches together. */
  readonly samples: number;
  /** One of the model's own size, and what is left over; one of them may be missing. */
  readonly sizes: readonly EvaluationBatch[];
  /** The loss, and then the other numbers that the model gives. */
  readonly measures: readonly Measure[];
}

/**
 * @param wanted the number of samples that an evaluation looks at, each once. A model that has one
 *   size only looks at as many whole batches as they make, and at least at one
 */
export function planEvaluation(
  program: ProgramBuilder,
  model: Model,
  wanted: number,
): EvaluationPlan {
  const own = sizeOf(model);
  // Of a batch that holds all samples, another size shows which dims are the batch.
  const whole = resized(model, own < wanted ? wanted : 2 * wanted);
  const isFixed = sizeOf(whole) === own;
  const samples = isFixed ? own * Math.max(1, Math.floor(wanted / own)) : wanted;
  const size = Math.min(own, samples);
  const rest = samples % size;
  const parts = [size, ...(rest > 0 ? [rest] : [])].map((count) =>
    count === own ? model : model.resized(count),
  );
  const names = [model.loss, ...numbersOf(model)];
  const found = parts.map((part) => planMeasures(part, whole, names, sizeOf(part) / samples));
  const measures = found[0]?.measures ?? [];
  for (const { buffer, type } of fieldRefs(parts[0] as Model).values()) {
    program.buffer(buffer, byteLength(type), "host");
  }
  const sizes = parts.map((part, index) => {
    const { graph, measures: own } = found[index] as MeasuresPlan;
    const terms = own.flatMap((measure) => measure.terms);
    const type = vectorType(terms);
    const buffer = program.buffer(evaluationSumsBuffer(index), byteLength(type), "host");
    return {
      samples: sizeOf(part),
      fields: fieldRefs(part),
      sums: { buffer, byteOffset: 0, type },
      factors: terms.flatMap(({ factor, type: { shape } }) =>
        new Array<number>(elementCount(shape)).fill(factor),
      ),
      inputs: graph.inputs,
      graph: program.graph(`evaluation.${index}`, "all", () => vectorGraph(graph, terms, "sums")),
    };
  });
  return { samples, sizes, measures };
}

/** One run over a batch of this size. */
export function evaluationStage(batch: EvaluationBatch, inputs: Run["inputs"]): RunStage {
  const run = { graph: batch.graph, inputs, outputs: { sums: batch.sums } };
  return { name: "evaluation", runs: [run], mode: "ordered" };
}

/** The fields of a batch, and the keys of its samples if the model has them. */
function fieldRefs(model: Model): Map<string, TensorRef> {
  return new Map(
    fieldsOf(model).map((name) => {
      const buffer = fieldBuffer("evaluation", name);
      return [name, { buffer, byteOffset: 0, type: typeOf(model.graph, name) }];
    }),
  );
}

/** Outputs of one float beside the loss. */
function numbersOf({ graph, outputs }: Model): string[] {
  return Object.values(outputs).filter((name) => {
    const { dtype, shape } = typeOf(graph, name);
    return isFloat(dtype) && shape.length === 0;
  });
}
