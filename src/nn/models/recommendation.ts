/** Models for recommendation: matrix factorization for ratings, and DLRM for clicks. */
import {
  add,
  binaryCrossEntropyWithLogits,
  concat,
  gather,
  matmul,
  mse,
  mul,
  reduceSum,
  reshape,
  slice,
  swapLast,
} from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { checkOptions, count, counts, finite, type OptionKinds } from "../../options.ts";
import { defineModel } from "../define.ts";
import { normal, uniform, zeros } from "../initializers.ts";
import { embedding } from "../layers/linear.ts";
import { positions } from "../layers/positions.ts";
import type { ModelDefinition } from "../model.ts";
import type { Scope } from "../scope.ts";
import { perceptron } from "./mlp.ts";

export interface MatrixFactorizationOptions {
  readonly users: number;
  readonly items: number;
  /** The length of the vector of a user or an item. Default: 16. */
  readonly width?: number;
  /** The initial prediction: the mean rating of the data. Default: 0. */
  readonly mean?: number;
}

/** The schemas of the options of matrixFactorization. */
const MATRIX_FACTORIZATION_OPTIONS: OptionKinds<MatrixFactorizationOptions> = {
  users: count,
  items: count,
  width: count.optional(),
  mean: finite.optional(),
};

/**
 * rating = mean + bias of the user + bias of the item + user · item (Koren et al. 2009). Batch
 * fields: `user` and `item`, int32 (batch), and `rating` (batch). Outputs: `loss` (mean squared
 * error), `prediction` (batch).
 */
export function matrixFactorization(options: MatrixFactorizationOptions): ModelDefinition {
  checkOptions("matrixFactorization", options, MATRIX_FACTORIZATION_OPTIONS);
  const { users, items, width = 16, mean = 0 } = options;
  return defineModel("matrix_factorization", (m) => {
    const rating = (): Value => m.input("rating", [m.batch]);
    const sideOf = (name: string, vocabulary: number): { vector: Value; bias: Value } => {
      const ids = m.input(name, [m.batch], "int32");
      const table = { vocabulary, width, initializer: normal(0.1) };
      const biases = { vocabulary, width: 1, initializer: zeros };
      return {
        vector: embedding(m.child(`${name}_embedding`), ids, table),
        bias: reshape(embedding(m.child(`${name}_bias`), ids, biases), [m.batch]),
      };
    };
    const user = sideOf("user", users);
    const item = sideOf("item", items);
    const start = m.parameter("bias", [], { kind: "constant", value: mean });
    const match = reduceSum(mul(user.vector, item.vector), { axes: [1], keepdims: false });
    const prediction = add(add(match, add(user.bias, item.bias)), start);
    return { loss: mse(prediction, rating()), prediction };
  });
}

export interface DlrmOptions {
  /** The number of dense numbers of a sample. */
  readonly dense: number;
  /** The number of values of each categorical field. */
  readonly categories: readonly number[];
  /** The length of the vector of a category. Default: 16. */
  readonly width?: number;
  /** The hidden widths of the network below the interactions. Default: [64]. */
  readonly bottom?: readonly number[];
  /** The hidden widths of the network above the interactions. Default: [64, 32]. */
  readonly top?: readonly number[];
}

/** The schemas of the options of dlrm. */
const DLRM_OPTIONS: OptionKinds<DlrmOptions> = {
  dense: count,
  categories: counts.min(1),
  width: count.optional(),
  bottom: counts.optional(),
  top: counts.optional(),
};

/**
 * Deep learning recommendation model (Naumov et al. 2019): a network takes the dense numbers,
 * tables take the categories; the dot products of all pairs, together with the dense vector, go
 * through a second network. Batch fields: `dense` (batch, dense), `categories` int32 (batch,
 * fields) and `label` (batch), 0 or 1. Outputs: `loss` (binary cross-entropy), `logits` (batch).
 */
export function dlrm(options: DlrmOptions): ModelDefinition {
  checkOptions("dlrm", options, DLRM_OPTIONS);
  const { dense, categories, width = 16, bottom = [64], top = [64, 32] } = options;
  return defineModel("dlrm", (m) => {
    const numbers = m.input("dense", [m.batch, dense]);
    const ids = m.input("categories", [m.batch, categories.length], "int32");
    const label = m.input("label", [m.batch]);
    const described = perceptron(m.child("bottom"), numbers, [...bottom, width]);
    const vectors = categories.map((vocabulary, field) => {
      const column = reshape(slice(ids, [{ axis: 1, start: field, end: field + 1 }]), [m.batch]);
      const initializer = uniform(1 / Math.sqrt(vocabulary));
      return embedding(m.child("tables").child(field), column, { vocabulary, width, initializer });
    });
    const features = concat([described, interactions(m, [described, ...vectors])], 1);
    const logits = reshape(perceptron(m.child("top"), features, [...top, 1]), [m.batch]);
    return { loss: binaryCrossEntropyWithLogits(logits, label), logits };
  });
}

/** The dot product of each pair of vectors (batch, width): (batch, pairs). */
function interactions(m: Scope, vectors: readonly Value[]): Value {
  const scope = m.child("interactions");
  return scope.within(() => {
    const [batch = 1, width = 1] = vectors[0]?.shape ?? [];
    const rows = vectors.map((vector) => reshape(vector, [batch, 1, width]));
    const stacked = concat(rows, 1);
    const count = vectors.length;
    const products = reshape(matmul(stacked, swapLast(stacked)), [batch, count * count]);
    const pairs: Value[] = [];
    for (let row = 1; row < count; row++) pairs.push(positions(m.builder, row, row * count));
    return gather(products, concat(pairs, 0), 1);
  });
}
