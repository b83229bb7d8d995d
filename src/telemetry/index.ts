export type {
  BitsPerByte,
  CheckpointSaved,
  Evaluated,
  EventSink,
  Report,
  RunEvent,
  RunFinished,
  RunStarted,
  RunStopped,
  StepDone,
} from "./events.ts";
export { type JsonlSink, jsonlSink } from "./jsonl.ts";
export { duration, type TerminalOptions, terminalSink } from "./terminal.ts";
