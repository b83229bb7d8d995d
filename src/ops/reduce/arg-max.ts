import { positionOf } from "./shared.ts";

/**
 * The index of the maximum along `axis`; of several, the first, or the last with
 * `select_last_index`.
 */
export const argMax = positionOf("ArgMax");
