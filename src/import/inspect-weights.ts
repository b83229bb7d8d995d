/** Describes what training would do with each weight of a file, for `lockstep inspect`. */

import type { OnnxFile } from "../onnx/index.ts";
import { elementCount, formatShape } from "../tensor/index.ts";
import { planWeights, summarizeWeights } from "./plan.ts";
import type { Weight } from "./weights.ts";

export interface InspectedWeight {
  /** The name in the state dict of the module, as far as the file tells it. */
  readonly name: string;
  readonly role: Weight["role"];
  /** The reason for its role, as part of a sentence. */
  readonly why: string;
  /** The shape in the file. */
  readonly shape: readonly number[];
  /** The name of the initializer that holds it, if that differs in the file. */
  readonly given?: string;
  /** Other names of the same weight. */
  readonly ties: readonly string[];
}

export interface InspectedWeights {
  readonly summary: string;
  readonly weights: readonly InspectedWeight[];
  /** Sentences about what is uncertain. */
  readonly notices: readonly string[];
  /** The names of parameters from which the exporter computed constants. */
  readonly lost: readonly string[];
}

export function inspectWeights(file: OnnxFile): InspectedWeights {
  const plan = planWeights(file);
  const shapes = new Map(plan.graph.initializer.map(({ name, dims }) => [name, dims]));
  const all = [...plan.weights.values()];
  const trained = all
    .filter(({ role }) => role === "parameter")
    .map(({ name }) => [name, elementCount(shapes.get(name) ?? [])] as const);
  return {
    summary: summarizeWeights(plan, trained),
    weights: all.map(({ name, role, why, given, ties }) => ({
      name,
      role,
      why,
      shape: shapes.get(name) ?? [],
      ...(given === name || given === "" ? {} : { given }),
      ties,
    })),
    notices: [...plan.notices, ...plan.gradients],
    lost: plan.lost,
  };
}

const WORDS = { parameter: "trained", constant: "constant", statistic: "statistic" } as const;

/** The rows of a table, and the lines below it. */
export function describeWeights({ summary, weights, notices, lost }: InspectedWeights): {
  readonly title: string;
  readonly rows: readonly (readonly string[])[];
  readonly lines: readonly string[];
} {
  const rows = weights.map(({ name, role, why, shape, given, ties }) => [
    name,
    formatShape(shape),
    WORDS[role],
    [
      why,
      ...(given === undefined || why.includes(given) ? [] : [`"${given}" in the file`]),
      ...ties.map((tie) => `tied: ${tie}`),
    ].join("; "),
  ]);
  const gone = lost.length === 0 ? [] : [`Not in the file any more: ${lost.join(", ")}`];
  return { title: `What training does with them: ${summary}`, rows, lines: [...gone, ...notices] };
}
