import { drawnLike } from "./shared.ts";

/** Ones with the chance that the input gives, else zeros. As in PyTorch, no gradient goes to the chances. */
export const bernoulli = drawnLike("Bernoulli", {});
