/**
 * Records what a model builds. The model of a run file is code; a job holds the graphs that this
 * code built for each batch size and mode that a run asks for, and returns them when it is asked
 * for the same again.
 */
import { LockstepError } from "../errors.ts";
import type { BuildOptions, Model, ModelDefinition } from "../nn/index.ts";

/**
 * The options of a build. The type of the parameters is not among them: runs use the type that the
 * model chooses.
 */
export type Asked = Required<Pick<BuildOptions, "batch" | "mode" | "exported">>;

export interface RecordedBuild {
  readonly asked: Asked;
  /** The model, or the error of building it. */
  readonly result: Model | LockstepError;
}

export interface Recording {
  /**
   * A definition that returns the same models as the recorded one and builds each of them only
   * once.
   */
  readonly definition: ModelDefinition;
  /** The builds that were asked for since the recording was begun, in order. */
  builds(): readonly RecordedBuild[];
  /** Begins a new recording. Models that were built before are kept and reused. */
  begin(): void;
}

export function recordModel(definition: ModelDefinition): Recording {
  const built = new Map<string, RecordedBuild>();
  const asked = new Set<string>();
  const get = (key: Asked, build: () => Model): Model => {
    const text = textOf(key);
    asked.add(text);
    const known = built.get(text) ?? { asked: key, result: attempt(build) };
    built.set(text, known);
    const { result } = known;
    if (result instanceof LockstepError) throw result;
    const resized = (batch: number) => get({ ...key, batch }, () => result.resized(batch));
    return { ...result, resized };
  };
  return {
    definition: {
      name: definition.name,
      build: (options) => get(askedOf(options), () => definition.build(options)),
    },
    builds: () => [...asked].map((text) => built.get(text) as RecordedBuild),
    begin: () => asked.clear(),
  };
}

function attempt(build: () => Model): Model | LockstepError {
  try {
    return build();
  } catch (error) {
    if (error instanceof LockstepError) return error;
    throw error;
  }
}

export function askedOf({ batch, mode, exported = false }: BuildOptions): Asked {
  return { batch, mode, exported };
}

export function textOf({ batch, mode, exported }: Asked): string {
  return `${mode}${exported ? "-exported" : ""}-${batch}`;
}

/**
 * A model that looks up what was recorded. `find` returns the model without `resized`, or throws
 * the error of building it.
 */
export function replayModel(
  name: string,
  known: ReadonlySet<string>,
  find: (asked: Asked) => Omit<Model, "resized">,
): ModelDefinition {
  const found = new Map<string, Omit<Model, "resized">>();
  const get = (asked: Asked): Model => {
    const text = textOf(asked);
    if (!known.has(text)) throw unknownBuild(name, asked, known);
    const model = found.get(text) ?? find(asked);
    found.set(text, model);
    return { ...model, resized: (batch) => get({ ...asked, batch }) };
  };
  return { name, build: (options) => get(askedOf(options)) };
}

function unknownBuild(name: string, asked: Asked, known: ReadonlySet<string>): LockstepError {
  const { batch, mode } = asked;
  return new LockstepError(
    "JOB",
    `The job does not contain the model "${name}" for ${batch} samples at a time to ${mode === "train" ? "train" : "evaluate"}: it was made for a different run.`,
    {
      hint: `It contains: ${[...known].join(", ")}. Make the job again for this batch and these micro-batches, on a machine that has the data.`,
      fields: { batch, mode },
    },
  );
}
