/** Makes a model from a function that builds it within a scope. */
import { LockstepError } from "../errors.ts";
import { add, div } from "../functional/index.ts";
import type { GraphBuilder, Value } from "../graph/index.ts";
import { newBuilder } from "../ops/index.ts";
import { anything, checkOptions, choice, flag, type OptionKinds } from "../options.ts";
import { formatType, isFloat } from "../tensor/index.ts";
import type { BuildOptions, Model, ModelDefinition, State } from "./model.ts";
import { type ModelUnderConstruction, RANDOM_KEY, Scope } from "./scope.ts";

/** The outputs of a model: a scalar loss, and any others by name. */
export type ModelOutputs = { readonly loss: Value } & Readonly<Record<string, Value>>;

const BUILD_OPTIONS: OptionKinds<BuildOptions> = {
  batch: anything,
  mode: choice("train", "eval"),
  exported: flag.optional(),
  dtype: anything.optional(),
};

/**
 * Defines a model by a function that builds it:
 *
 * ```ts
 * const line = defineModel("line", (m) => {
 *   const x = m.input("x", [m.batch, 1]);
 *   const y = m.input("y", [m.batch, 1]);
 *   const prediction = linear(m.child("out"), x, { outputs: 1 });
 *   return { loss: mse(prediction, y), prediction };
 * });
 * ```
 */
export function defineModel(name: string, body: (scope: Scope) => ModelOutputs): ModelDefinition {
  return { name, build: (options) => buildModel(name, body, options) };
}

function buildModel(
  name: string,
  body: (scope: Scope) => ModelOutputs,
  options: BuildOptions,
): Model {
  checkOptions(`Model "${name}"`, options, BUILD_OPTIONS);
  checkBuild(name, options);
  const builder = newBuilder(name);
  const under: ModelUnderConstruction = {
    builder,
    batch: options.batch,
    mode: options.mode,
    exported: options.exported ?? false,
    dtype: options.dtype ?? "float32",
    inputs: [],
    parameters: [],
    states: [],
    key: undefined,
    streams: 0,
    shared: new Map(),
    notes: [],
    losses: [],
    measures: new Map(),
    devices: undefined,
  };
  const own = body(new Scope(under, ""));
  checkLoss(name, own.loss);
  const loss = under.losses.reduce((sum, added) => add(sum, added), own.loss);
  const values = { ...own, loss, ...measuresOf(under, own) };
  const outputs = Object.entries(values).map(([key, value]) => give(builder, key, value));
  const states: State[] = under.states.map(({ declared, next }) => {
    const result = give(builder, `${declared.name}.next`, next ?? builder.value(declared.name));
    checkState(declared, result);
    return { ...declared, next: result.name };
  });
  const graph = builder.build([...outputs, ...states.map(({ next }) => builder.value(next))]);
  const others = Object.keys(values).filter((key) => key !== "loss");
  return {
    name,
    graph,
    batch: under.inputs,
    parameters: under.parameters,
    states,
    expectations: builder.expectations,
    randomKey: under.key === undefined ? undefined : RANDOM_KEY,
    loss: "loss",
    outputs: Object.fromEntries(others.map((key) => [key, key])),
    resized: (batch) => buildModel(name, body, { ...options, batch }),
    notes: under.notes,
    ...(under.devices && { devices: under.devices }),
  };
}

/** The measures that layers give, each as the mean over its layers. */
function measuresOf(
  { builder, measures }: ModelUnderConstruction,
  own: ModelOutputs,
): Record<string, Value> {
  const twice = [...measures.keys()].find((name) => name in own);
  if (twice !== undefined) {
    const hint = "Give the output of the model another name.";
    const text = `Model "${builder.name}": the output "${twice}" is also a measure of a layer.`;
    throw new LockstepError("INVALID_OPTION", text, { hint });
  }
  return Object.fromEntries(
    [...measures].map(([name, all]) => [name, div(all.reduce(add), all.length)]),
  );
}

/** Gives a value a name of its own, so that outputs have the names that the model gave them. */
function give(builder: GraphBuilder, name: string, value: Value): Value {
  return builder.append("Identity", name, [value], {}, [name])[0] as Value;
}

function checkBuild(name: string, { batch, dtype }: BuildOptions): void {
  if (!Number.isInteger(batch) || batch < 1) {
    throw new LockstepError("INVALID_OPTION", `Model "${name}": a batch of ${batch} samples.`, {
      hint: "The batch must be a whole number above 0.",
    });
  }
  if (dtype !== undefined && !isFloat(dtype)) {
    throw new LockstepError("INVALID_OPTION", `Model "${name}": parameters of type ${dtype}.`, {
      hint: "Use a float type: float32, float64, float16 or bfloat16.",
    });
  }
}

function checkLoss(name: string, loss: Value): void {
  if (loss.shape.length === 0 && isFloat(loss.dtype)) return;
  throw new LockstepError(
    "SHAPE_MISMATCH",
    `Model "${name}": the loss must be one float, got ${formatType(loss.type)}.`,
    { hint: "Reduce it over the batch: reduceMean(loss, { keepdims: false })." },
  );
}

function checkState(declared: Omit<State, "next">, next: Value): void {
  if (formatType(declared.type) === formatType(next.type)) return;
  throw new LockstepError(
    "SHAPE_MISMATCH",
    `State "${declared.name}" is ${formatType(declared.type)}, but its update is ${formatType(next.type)}.`,
  );
}
