/** The public list of Lockstep, written by hand. */
export { type DataSource, text } from "./data/index.ts";
export { createOrtEngine, type Engine } from "./engine/index.ts";
export { type ErrorCode, LockstepError } from "./errors.ts";
export { defineModel, gpt, type Model, type ModelDefinition } from "./nn/index.ts";
export { adamw, constant, cosine, linear as linearSchedule, sgd, wsd } from "./optimizer/index.ts";
export { createTrainer, defineRun, type RunOptions } from "./train/index.ts";
