/** Layers that multiply by a table of weights: linear and embedding. */
import { gather, linear as product } from "../../functional/index.ts";
import type { Value } from "../../graph/index.ts";
import { finite, flag, type OptionKinds } from "../../options.ts";
import { fanIn, normal } from "../initializers.ts";
import type { Initializer } from "../model.ts";
import { checkLayer, initial } from "../options.ts";
import type { Scope } from "../scope.ts";

export interface LinearOptions {
  readonly outputs: number;
  /** Default: true. */
  readonly bias?: boolean;
  /** The initializer of the weight. Default: uniform within ±1/√inputs. */
  readonly initializer?: Initializer;
  /** The initializer of the bias. Default: uniform within ±1/√inputs. */
  readonly biasInitializer?: Initializer;
}

/** The schemas of the options of a linear layer. */
const LINEAR_OPTIONS: OptionKinds<LinearOptions> = {
  outputs: finite,
  bias: flag.optional(),
  initializer: initial,
  biasInitializer: initial,
};

/**
 * x · weight + bias over the last dim of `x` (…, inputs) → (…, outputs). `weight` is [inputs,
 * outputs], the transpose of PyTorch's, so that one Gemm without transposition computes it.
 * Parameters: `weight`, `bias`.
 */
export function linear(scope: Scope, x: Value, options: LinearOptions): Value {
  checkLayer(scope, "linear", options, LINEAR_OPTIONS);
  return scope.within(() => {
    const inputs = x.shape.at(-1) ?? scope.fail("a linear layer needs at least one dim");
    const { outputs, initializer = fanIn(inputs), biasInitializer = fanIn(inputs) } = options;
    const weight = scope.parameter("weight", [inputs, outputs], initializer);
    if (options.bias === false) return product(x, weight);
    return product(x, weight, scope.parameter("bias", [outputs], biasInitializer));
  });
}

export interface EmbeddingOptions {
  /** The number of rows of the table: ids are in [0, vocabulary). */
  readonly vocabulary: number;
  readonly width: number;
  /** The initializer of the table. Default: normal with deviation 0.02. */
  readonly initializer?: Initializer;
}

/** The schemas of the options of an embedding. */
const EMBEDDING_OPTIONS: OptionKinds<EmbeddingOptions> = {
  vocabulary: finite,
  width: finite,
  initializer: initial,
};

/**
 * Rows of a table at `ids` (int32 or int64, any shape) → (…, width). Parameter: `weight`
 * [vocabulary, width].
 */
export function embedding(scope: Scope, ids: Value, options: EmbeddingOptions): Value {
  return scope.within(() => gather(embeddingTable(scope, options), ids));
}

/** The table alone, for two layers that share it. */
export function embeddingTable(scope: Scope, options: EmbeddingOptions): Value {
  checkLayer(scope, "embedding", options, EMBEDDING_OPTIONS);
  const { vocabulary, width, initializer = normal(0.02) } = options;
  return scope.parameter("weight", [vocabulary, width], initializer);
}
