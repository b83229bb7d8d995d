export { eventSchema } from "./check.ts";
export type {
  BitsPerByte,
  CheckpointSaved,
  Evaluated,
  EventSink,
  History,
  NetworkFacts,
  Report,
  RunComplete,
  RunEvent,
  RunFailed,
  RunFinished,
  RunFinishing,
  RunStarted,
  RunStopped,
  RunStopping,
  Samples,
  SharesChanged,
  StepDone,
} from "./events.ts";
export { NO_HISTORY } from "./events.ts";
export { type JsonlSink, jsonlSink, lastStepOf } from "./jsonl.ts";
export { printable, printableJson, printableLine } from "./printable.ts";
export { type TerminalOptions, terminalSink } from "./terminal.ts";
export { duration } from "./words.ts";
