import { positionOf } from "./shared.ts";

/**
 * The index of the minimum along `axis`; of several, the first, or the last with
 * `select_last_index`.
 */
export const argMin = positionOf("ArgMin");
