/**
 * Sources of tables under test: all their samples, their failures, and one table that every format
 * can hold.
 */
import assert from "node:assert/strict";
import { type DataSource, type ModelInput, openData } from "../../src/data/index.ts";
import type { LockstepError } from "../../src/errors.ts";
import { inputsOf, readSamples } from "./batch.ts";

/** Resolves with the error that a promise must reject with. */
export function failure(promise: Promise<unknown>): Promise<LockstepError> {
  return promise.then(
    () => assert.fail("it should have failed"),
    (error: LockstepError) => error,
  );
}

/** Returns all samples for training, as numbers. */
export async function readAll(
  source: DataSource,
  inputs: readonly ModelInput[],
  baseDir: string,
): Promise<Record<string, number[]>> {
  const dataset = await openData(source, { inputs, baseDir });
  try {
    return await readSamples(dataset.train, inputs, [...Array(dataset.train.length).keys()]);
  } finally {
    await dataset.close();
  }
}

/** The inputs x = [i, i / 2] and y = i. */
export const XY = inputsOf({ x: ["float32", [1, 2]], y: ["int32", [1]] });

/**
 * Checks that the rows are 0, 1, 2 … of x = [i, i / 2], y = i, in any order. Every source is
 * checked alike.
 */
export function checkRows({ x, y }: Record<string, number[]>, rows: number): void {
  assert.deepEqual(
    [...(y ?? [])].sort((a, b) => a - b),
    Array.from({ length: rows }, (_, i) => i),
  );
  assert.deepEqual(
    x,
    y?.flatMap((i) => [i, i / 2]),
  );
}
