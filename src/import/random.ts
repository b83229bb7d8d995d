/**
 * Draws a file's random numbers by the key of each sample, so that they do not depend on the
 * micro-batch, worker or engine.
 */
import { LockstepError } from "../errors.ts";
import { add, cast, less, mul } from "../functional/index.ts";
import type { Attributes, Value } from "../graph/index.ts";
import { dtypeFromOnnx, formatShape, type Shape } from "../tensor/index.ts";

/**
 * Draws float32 numbers of this shape, normally distributed with mean 0 and deviation 1, or uniform
 * in [0, 1), whose rows belong to the samples in turn. `whole`: each sample has a single row.
 * Undefined if the shape cannot be divided in this way.
 */
export type Draw = (kind: "normal" | "uniform", shape: Shape, whole: boolean) => Value | undefined;

/**
 * The random numbers of a node of a file; undefined if it draws nothing. `like`: its input;
 * `fields`: the fields of the data.
 */
export function drawing(
  node: { readonly op: string; readonly attributes: Attributes },
  like: Value | undefined,
  draw: Draw,
  fields: Iterable<Value>,
): Value | undefined {
  const kind = KINDS[node.op];
  if (kind === undefined) return undefined;
  const number = (name: string, otherwise: number): number => {
    const value = node.attributes[name];
    return value?.kind === "float" || value?.kind === "int" ? value.value : otherwise;
  };
  const given = node.attributes["shape"];
  const shape = like?.shape ?? (given?.kind === "ints" ? given.value : []);
  const drawn = draw(kind, shape, like === undefined || !dependsOn(like, fields));
  if (drawn === undefined) {
    throw new LockstepError(
      "ONNX_UNSUPPORTED",
      `noise of shape ${formatShape(shape)} does not belong to single samples`,
      {
        hint: "Draw it with the batch as its first dim, for instance with randn_like of an activation, or make it an input.",
      },
    );
  }
  const dtype = dtypeFromOnnx(number("dtype", 0)) ?? like?.dtype ?? "float32";
  if (node.op === "Bernoulli") return cast(less(drawn, cast(like as Value, "float32")), dtype);
  const [base, scale] =
    kind === "normal"
      ? [number("mean", 0), number("scale", 1)]
      : [number("low", 0), number("high", 1) - number("low", 0)];
  const scaled = scale === 1 ? drawn : mul(drawn, scale);
  return cast(base === 0 ? scaled : add(scaled, base), dtype);
}

const KINDS: Readonly<Record<string, "normal" | "uniform">> = {
  Bernoulli: "uniform",
  RandomNormal: "normal",
  RandomNormalLike: "normal",
  RandomUniform: "uniform",
  RandomUniformLike: "uniform",
};

/** Whether a value is computed from one of `sources`. */
function dependsOn(value: Value, sources: Iterable<Value>): boolean {
  const wanted = new Set([...sources].map(({ name }) => name));
  const seen = new Set<string>();
  const open = [value.name];
  for (let name = open.pop(); name !== undefined; name = open.pop()) {
    if (wanted.has(name)) return true;
    if (name === "" || seen.has(name)) continue;
    seen.add(name);
    open.push(...(value.builder.makerOf(value.builder.value(name))?.inputs ?? []));
  }
  return false;
}
