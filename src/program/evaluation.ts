/**
 * Evaluates a model on held-out samples: forward passes over batches of them, and the loss and
 * measures of all samples together.
 */
import { type Graph, typeOf } from "../graph/index.ts";
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

/** What an evaluation consists of, on any rank. */
interface Evaluated {
  readonly samples: number;
  readonly sizes: readonly EvaluatedSize[];
  readonly measures: readonly Measure[];
}

interface EvaluatedSize {
  readonly model: Model;
  readonly terms: Measure["terms"];
  /** Has the terms of all measures as one vector. */
  readonly graph: Graph;
}

/** By model and number of samples. It takes half of the time of planning, and ranks come and go. */
const known = new WeakMap<Model, Map<number, Evaluated>>();

/**
 * @param wanted the number of samples that an evaluation looks at, each once. A model that has one
 *   size only looks at as many whole batches as they make, and at least at one
 */
export function planEvaluation(
  program: ProgramBuilder,
  model: Model,
  wanted: number,
): EvaluationPlan {
  const ofModel = known.get(model) ?? new Map<number, Evaluated>();
  const evaluated = ofModel.get(wanted) ?? evaluate(model, wanted);
  known.set(model, ofModel.set(wanted, evaluated));
  const { samples, measures } = evaluated;
  for (const { buffer, type } of fieldRefs((evaluated.sizes[0] as EvaluatedSize).model).values()) {
    program.buffer(buffer, byteLength(type), "host");
  }
  const sizes = evaluated.sizes.map(({ model: part, terms, graph }, index) => {
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
      graph: program.graph(`evaluation.${index}`, "all", () => graph),
    };
  });
  return { samples, sizes, measures };
}

function evaluate(model: Model, wanted: number): Evaluated {
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
  const sizes = parts.map((part, index) => {
    const { graph, measures } = found[index] as MeasuresPlan;
    const terms = measures.flatMap((measure) => measure.terms);
    return { model: part, terms, graph: vectorGraph(graph, terms, "sums") };
  });
  return { samples, sizes, measures: found[0]?.measures ?? [] };
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
