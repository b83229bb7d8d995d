import { positionOf } from "./shared.ts";

/** Where along `axis` the maximum is; the first of several, or the last with `select_last_index`. */
export const argMax = positionOf("ArgMax");
