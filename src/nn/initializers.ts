/** Common initializers for layers. All are data; see `Initializer`. */
import type { Initializer } from "./model.ts";

export const zeros: Initializer = { kind: "zeros" };
export const ones: Initializer = { kind: "ones" };

export const normal = (standardDeviation: number): Initializer => ({
  kind: "normal",
  standardDeviation,
});

export const uniform = (bound: number): Initializer => ({
  kind: "uniform",
  low: -bound,
  high: bound,
});

/** Uniform within ±1/√inputs, as PyTorch initializes linear and convolution layers. */
export const fanIn = (inputs: number): Initializer => uniform(1 / Math.sqrt(inputs));

/** Normal with deviation √(2/inputs), for layers followed by a ReLU (He et al. 2015). */
export const heNormal = (inputs: number): Initializer => normal(Math.sqrt(2 / inputs));

/**
 * Uniform within ±√(6/(inputs + outputs)), for layers followed by tanh (Glorot and Bengio 2010).
 */
export const glorotUniform = (inputs: number, outputs: number): Initializer =>
  uniform(Math.sqrt(6 / (inputs + outputs)));
