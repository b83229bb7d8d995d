import { drawnLike } from "./shared.ts";

/**
 * Ones with the probability that the input gives, otherwise zeros. As in PyTorch, no gradient flows
 * to the probabilities.
 */
export const bernoulli = drawnLike("Bernoulli", {});
