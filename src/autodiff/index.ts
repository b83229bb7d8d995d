export { backward } from "./backward.ts";
export { type Differentiated, differentiate } from "./differentiate.ts";
