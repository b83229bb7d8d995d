/**
 * A scope is a layer's place in a model: it declares parameters under the layer's name and makes
 * errors name the layer. Names are those that the field uses: `blocks.3.attention.qkv.weight`.
 */
import { LockstepError } from "../errors.ts";
import type { GraphBuilder, Value } from "../graph/index.ts";
import { anything, checkOptions, flag, type OptionKinds } from "../options.ts";
import {
  type DType,
  formatShape,
  formatType,
  isFloat,
  type Shape,
  sameType,
  type Tensor,
  type TensorType,
} from "../tensor/index.ts";
import type { ModelDevices } from "./devices.ts";
import type { Initializer, Mode, Parameter, State, StoredForm } from "./model.ts";

export interface ParameterOptions {
  /** Whether weight decay applies. Default: true for tensors of two or more dims. */
  readonly decay?: boolean;
  /** The form of the parameter in files of weights, if it differs from the form here. */
  readonly stored?: StoredForm | undefined;
}

const PARAMETER_OPTIONS: OptionKinds<ParameterOptions> = {
  decay: flag.optional(),
  stored: anything.optional(),
};

/** A tensor that training steps replace and no gradient reaches. */
export interface StateHandle {
  readonly value: Value;
  /**
   * States the value of the state after the step. It is called at most once, and in `train` mode
   * only.
   */
  update(next: Value): void;
}

interface StateEntry {
  readonly declared: Omit<State, "next">;
  next: Value | undefined;
}

/** The data that the scopes of one model share while it is built. */
export interface ModelUnderConstruction {
  readonly builder: GraphBuilder;
  readonly batch: number;
  readonly mode: Mode;
  readonly exported: boolean;
  readonly dtype: DType;
  readonly inputs: string[];
  readonly parameters: Parameter[];
  readonly states: StateEntry[];
  key: Value | undefined;
  /** The number of random layers so far: each draws from a stream of its own. */
  streams: number;
  readonly shared: Map<string, Value>;
  readonly notes: string[];
  /** What layers add to the loss in training. */
  readonly losses: Value[];
  /** The numbers that layers tell of themselves, by name. */
  readonly measures: Map<string, Value[]>;
  devices: ModelDevices | undefined;
}

/** The graph input that holds the key of each sample. */
export const RANDOM_KEY = "random_key";

export class Scope {
  /** The path of the layer: `blocks.3.attention`; empty at the root. */
  readonly path: string;
  readonly #model: ModelUnderConstruction;
  readonly #again: boolean;

  /** @internal Use `defineModel` and `child`. */
  constructor(model: ModelUnderConstruction, path: string, again = false) {
    this.#model = model;
    this.path = path;
    this.#again = again;
  }

  get builder(): GraphBuilder {
    return this.#model.builder;
  }

  /** The number of samples of one execution. */
  get batch(): number {
    return this.#model.batch;
  }

  get mode(): Mode {
    return this.#model.mode;
  }

  /** Whether other programs will run the graph: see `BuildOptions`. */
  get exported(): boolean {
    return this.#model.exported;
  }

  /** The element type of parameters. */
  get dtype(): DType {
    return this.#model.dtype;
  }

  /** The scope of a part: `child("blocks").child(3)` is `blocks.3`. */
  child(name: string | number): Scope {
    const text = String(name);
    if (!/^\w[\w.-]*$/.test(text)) {
      this.fail(
        `"${text}" is not a valid name for a layer`,
        "Use letters, digits and underscores; dots between levels.",
      );
    }
    return new Scope(this.#model, this.#named(text), this.#again);
  }

  /**
   * The same layer for a second use: its parameters and states are those declared before, not new
   * ones.
   */
  again(): Scope {
    return new Scope(this.#model, this.path, true);
  }

  /** Runs `body` with this layer's name on all nodes made in it. */
  within<T>(body: () => T): T {
    return this.builder.within(this.path, body);
  }

  /**
   * A field of the batch: `input("ids", [scope.batch, context], "int32")`. Its name has no scope
   * prefix.
   */
  input(name: string, shape: Shape, dtype: DType = this.dtype): Value {
    if (shape[0] !== this.batch) {
      this.fail(
        `the batch field "${name}" has shape ${formatShape(shape)}, but its leading dim must be the batch (${this.batch})`,
        "Write [scope.batch, ...].",
      );
    }
    const value = this.builder.input(name, { dtype, shape });
    this.#model.inputs.push(name);
    return value;
  }

  /** A trained tensor, named `path.name`. */
  parameter(
    name: string,
    shape: Shape,
    initializer: Initializer,
    options: ParameterOptions = {},
  ): Value {
    const full = this.#named(name);
    checkOptions(`The parameter "${full}"`, options, PARAMETER_OPTIONS);
    this.#checkShape(full, shape);
    const type = { dtype: this.dtype, shape: [...shape] };
    if (this.#again) return this.#declared(full, type);
    const value = this.builder.input(full, type);
    const decay = options.decay ?? shape.length >= 2;
    const stored = options.stored === undefined ? {} : { stored: options.stored };
    this.#model.parameters.push({ name: full, type, initializer, decay, ...stored });
    return value;
  }

  /** A tensor that the step replaces, such as a running statistic. */
  state(
    name: string,
    shape: Shape,
    initializer: Initializer,
    dtype: DType = this.dtype,
  ): StateHandle {
    const full = this.#named(name);
    this.#checkShape(full, shape);
    const type = { dtype, shape: [...shape] };
    if (this.#again) {
      const value = this.#declared(full, type);
      const entry = this.#model.states.find(({ declared }) => declared.name === full);
      return this.#stateHandle(value, entry ?? this.fail(`"${full}" is not a state`));
    }
    const entry: StateEntry = { declared: { name: full, type, initializer }, next: undefined };
    this.#model.states.push(entry);
    return this.#stateHandle(this.builder.input(full, type), entry);
  }

  constant(tensor: Tensor): Value {
    return this.within(() => this.builder.constant(tensor));
  }

  /**
   * The key of each sample, int32 [batch], from which random layers draw. It is declared on first
   * use.
   */
  get key(): Value {
    this.#model.key ??= this.builder.input(RANDOM_KEY, { dtype: "int32", shape: [this.batch] });
    return this.#model.key;
  }

  /** A number that no other random layer of this model has. */
  nextStream(): number {
    this.#model.streams += 1;
    return this.#model.streams;
  }

  /**
   * A value that many layers need and that is made once for a model, such as a mask or a table of
   * angles. `name` must contain everything that the value depends on.
   */
  shared(name: string, make: () => Value): Value {
    const known = this.#model.shared.get(name);
    if (known !== undefined) return known;
    const value = this.builder.within("shared", make);
    this.#model.shared.set(name, value);
    return value;
  }

  /** Adds a sentence that whoever trains the model should know before the first step. */
  note(text: string): void {
    this.#model.notes.push(text);
  }

  /** States how devices are to share the model, as a file says it. */
  shareAs(devices: ModelDevices): void {
    this.#model.devices = devices;
  }

  /**
   * Adds a scalar to the loss of the model in `train` mode, such as a penalty. The loss of
   * validation does not have it, so that models with and without it can be compared.
   */
  addLoss(value: Value): void {
    this.#checkScalar("what is added to the loss", value);
    if (this.mode === "train") this.#model.losses.push(value);
  }

  /**
   * Makes a scalar an output of the model, a measure. Of several layers that give one of the same
   * name, the measure is the mean.
   */
  addMeasure(name: string, value: Value): void {
    this.#checkScalar(`the measure "${name}"`, value);
    const known = this.#model.measures.get(name) ?? [];
    this.#model.measures.set(name, [...known, value]);
  }

  /**
   * Throws INVALID_OPTION with the layer's name: `fail("expected width 384, got 380", "set …")`.
   */
  fail(what: string, hint?: string): never {
    const where = this.path === "" ? this.builder.name : this.path;
    throw new LockstepError("INVALID_OPTION", `${where}: ${what}.`, {
      ...(hint === undefined ? {} : { hint }),
      fields: { layer: this.path },
    });
  }

  /** Throws SHAPE_MISMATCH with the layer's name, unless the last dim of `x` is `width`. */
  expectWidth(x: Value, width: number, hint?: string): void {
    const got = x.shape.at(-1);
    if (got === width) return;
    const where = this.path === "" ? this.builder.name : this.path;
    throw new LockstepError(
      "SHAPE_MISMATCH",
      `${where}: expected width ${width}, got ${got ?? "a scalar"} (input ${formatShape(x.shape)}).`,
      {
        ...(hint === undefined ? {} : { hint }),
        fields: { layer: this.path, expected: width, got: got ?? 0 },
      },
    );
  }

  #checkScalar(what: string, { type }: Value): void {
    if (type.shape.length === 0 && isFloat(type.dtype)) return;
    this.fail(`${what} must be one float, got ${formatType(type)}`, "Reduce it to a scalar.");
  }

  #stateHandle(value: Value, entry: StateEntry): StateHandle {
    const { name } = entry.declared;
    return {
      value,
      update: (next) => {
        if (this.mode !== "train") this.fail(`state "${name}" changes outside of training`);
        if (entry.next !== undefined) this.fail(`state "${name}" is updated twice`);
        entry.next = next;
      },
    };
  }

  #declared(name: string, type: TensorType): Value {
    if (!this.builder.has(name)) {
      this.fail(
        `"${name}" is used again before it was declared`,
        "Build the layer once without again().",
      );
    }
    const value = this.builder.value(name);
    if (!sameType(value.type, type)) {
      this.fail(`"${name}" is ${formatType(value.type)}, and is used again as ${formatType(type)}`);
    }
    return value;
  }

  #named(name: string): string {
    return this.path === "" ? name : `${this.path}.${name}`;
  }

  #checkShape(name: string, shape: Shape): void {
    if (shape.every((size) => Number.isInteger(size) && size > 0)) return;
    this.fail(
      `"${name}" would have shape ${formatShape(shape)}`,
      "Every size must be a whole number above 0.",
    );
  }
}
