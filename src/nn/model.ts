/**
 * What a model is to the rest: a graph whose inputs are batch fields, parameters, states and perhaps a random key.
 * Nothing here knows a layer, an optimizer or where a model came from (a run file or an `.onnx` file).
 */
import type { Expectation, Graph } from "../graph/index.ts";
import type { DType, Shape, Tensor, TensorType } from "../tensor/index.ts";

/** What a run trains: builds its graph for a batch size and a mode. */
export interface ModelDefinition {
  readonly name: string;
  /** Throws INVALID_OPTION, SHAPE_MISMATCH and others, naming the layer. */
  build(options: BuildOptions): Model;
}

/** In `eval` mode nothing is random and no state changes. */
export type Mode = "train" | "eval";

export interface BuildOptions {
  /** Samples of one run of the graph. */
  readonly batch: number;
  readonly mode: Mode;
  /** For a file that others run: what an imported model draws is then left to them, and not bound to a seed. Default: false. */
  readonly exported?: boolean;
  /** Of parameters and of float batch fields. Default: float32. */
  readonly dtype?: DType;
}

/** A model as a graph. All names below are names of graph inputs or outputs. */
export interface Model {
  readonly name: string;
  readonly graph: Graph;
  /** Inputs that the data fills, in order of declaration; the leading dim of each is the batch. */
  readonly batch: readonly string[];
  /** Inputs that are trained, in order of declaration. */
  readonly parameters: readonly Parameter[];
  /** Inputs that a training step replaces but no gradient reaches: running statistics. */
  readonly states: readonly State[];
  /** Input of type int32 [batch]: a key for each sample, from which random layers draw. Undefined without such layers. */
  readonly randomKey: string | undefined;
  /** From where to where values must be that come from data as they are: targets of a loss. */
  readonly expectations: readonly Expectation[];
  /** A scalar output. */
  readonly loss: string;
  /** Other outputs by what they are: `{ logits: "logits", accuracy: "accuracy" }`. Scalars are measures, the others predictions. */
  readonly outputs: Readonly<Record<string, string>>;
  /** The same model for another number of samples. Throws what building it throws. */
  readonly resized: (batch: number) => Model;
  /** What whoever trains this model should know before the first step: sentences. */
  readonly notes: readonly string[];
  /** For models from files: what is trained and what is not, in one line. */
  readonly trains?: string;
}

export interface Parameter {
  readonly name: string;
  readonly type: TensorType;
  readonly initializer: Initializer;
  /** Whether weight decay should shrink it, unless the optimizer is told otherwise: matrices, not biases and scales. */
  readonly decay: boolean;
  /** How files of weights have it, if not as it is here. */
  readonly stored?: StoredForm;
}

/** The form of a parameter in the state dict of the module that it came from. */
export interface StoredForm {
  /** A matrix with rows and columns exchanged. */
  readonly transposed?: boolean;
  readonly shape?: Shape;
  /** Other names of the same weight. */
  readonly ties?: readonly string[];
}

export interface State {
  readonly name: string;
  /** The graph output that holds the state after the step. In `eval` mode, the state itself. */
  readonly next: string;
  readonly type: TensorType;
  readonly initializer: Initializer;
}

/** Initial values as data, never code. */
export type Initializer =
  | { readonly kind: "zeros" }
  | { readonly kind: "ones" }
  | { readonly kind: "constant"; readonly value: number }
  | { readonly kind: "normal"; readonly standardDeviation: number; readonly mean?: number }
  /** Even in [low, high). */
  | { readonly kind: "uniform"; readonly low: number; readonly high: number }
  | { readonly kind: "tensor"; readonly tensor: Tensor };
