/**
 * What a model is to the rest of Lockstep: a graph whose inputs are batch fields, parameters,
 * states and possibly a random key. Nothing here knows a layer, an optimizer or where a model came
 * from (a run file or an `.onnx` file).
 */
import type { Expectation, Graph } from "../graph/index.ts";
import type { DType, Shape, Tensor, TensorType } from "../tensor/index.ts";
import type { ModelDevices } from "./devices.ts";

/** A model that a run trains: it builds its graph for a batch size and a mode. */
export interface ModelDefinition {
  readonly name: string;
  /** Throws INVALID_OPTION, SHAPE_MISMATCH and others, naming the layer. */
  build(options: BuildOptions): Model;
}

/** The mode of a graph. In `eval` mode nothing is random and no state changes. */
export type Mode = "train" | "eval";

export interface BuildOptions {
  /** The number of samples of one execution of the graph. */
  readonly batch: number;
  readonly mode: Mode;
  /**
   * Whether the graph is written to a file for other programs: random numbers of an imported model
   * are then drawn by the engine instead of from a seed. Default: false.
   */
  readonly exported?: boolean;
  /** The element type of parameters and of float batch fields. Default: float32. */
  readonly dtype?: DType;
}

/** A model as a graph. All names below are names of graph inputs or outputs. */
export interface Model {
  readonly name: string;
  readonly graph: Graph;
  /**
   * The inputs that the data fills, in order of declaration; the leading dim of each is the batch.
   */
  readonly batch: readonly string[];
  /** The inputs that are trained, in order of declaration. */
  readonly parameters: readonly Parameter[];
  /** The inputs that a training step replaces but that no gradient reaches: running statistics. */
  readonly states: readonly State[];
  /**
   * The input of type int32 [batch] that holds a key for each sample, from which random layers
   * draw. Undefined if there are no such layers.
   */
  readonly randomKey: string | undefined;
  /** The ranges of values that come directly from the data, such as the targets of a loss. */
  readonly expectations: readonly Expectation[];
  /** The name of the scalar loss output. */
  readonly loss: string;
  /**
   * The names of the other outputs, by what they are: `{ logits: "logits", accuracy: "accuracy" }`.
   * Scalars are measures, the others predictions.
   */
  readonly outputs: Readonly<Record<string, string>>;
  /** The same model for another number of samples. Throws the errors of building it. */
  readonly resized: (batch: number) => Model;
  /** Sentences that whoever trains this model should know before the first step. */
  readonly notes: readonly string[];
  /** For models from files: one line that says which weights are trained and which are not. */
  readonly trains?: string;
  /** How devices are to share it, if a file says so. */
  readonly devices?: ModelDevices;
}

export interface Parameter {
  readonly name: string;
  readonly type: TensorType;
  readonly initializer: Initializer;
  /**
   * Whether weight decay applies, unless the optimizer selects otherwise: to matrices, not to
   * biases and scales.
   */
  readonly decay: boolean;
  /** The form of the parameter in files of weights, if it differs from the form here. */
  readonly stored?: StoredForm;
}

/** The form of a parameter in the state dict of the module that it came from. */
export interface StoredForm {
  /** Whether the matrix is stored transposed. */
  readonly transposed?: boolean;
  readonly shape?: Shape;
  /** Other names of the same weight. */
  readonly ties?: readonly string[];
}

export interface State {
  readonly name: string;
  /**
   * The graph output that holds the state after the step. In `eval` mode, it is the state itself.
   */
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
  /** Uniform in [low, high). */
  | { readonly kind: "uniform"; readonly low: number; readonly high: number }
  | { readonly kind: "tensor"; readonly tensor: Tensor };
