/** What the start, the figures and the report of a run say of its engine, model and data. */
import type { Dataset } from "../data/index.ts";
import type { Device } from "../engine/index.ts";
import { typeOf } from "../graph/index.ts";
import type { Model } from "../nn/index.ts";
import { elementCount } from "../tensor/index.ts";

export function engineName({ name, version }: Device): string {
  return `${name} (${version})`;
}

export function parameterCount(model: Model): number {
  return model.parameters.reduce((sum, { type }) => sum + elementCount(type.shape), 0);
}

/** Returns the tokens of a sample of text; undefined for other data. */
export function tokensPerSample(model: Model, data: Dataset): number | undefined {
  const ids = model.batch[0];
  if (data.text === undefined || ids === undefined) return undefined;
  const { shape } = typeOf(model.graph, ids);
  return elementCount(shape.slice(1));
}
