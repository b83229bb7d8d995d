import type { OperatorDefinition } from "../../graph/index.ts";
import { bernoulli } from "./bernoulli.ts";
import { randomNormal } from "./random-normal.ts";
import { randomNormalLike } from "./random-normal-like.ts";
import { randomUniform } from "./random-uniform.ts";
import { randomUniformLike } from "./random-uniform-like.ts";

/**
 * Operators for which the engine draws random numbers: different numbers each time, which no seed
 * of a run reproduces.
 */
export const random = {
  Bernoulli: bernoulli,
  RandomNormal: randomNormal,
  RandomNormalLike: randomNormalLike,
  RandomUniform: randomUniform,
  RandomUniformLike: randomUniformLike,
} satisfies Record<string, OperatorDefinition>;
