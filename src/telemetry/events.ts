/** What can happen in a run: one typed union. Those who show it, keep it or count it are sinks. */

export type RunEvent =
  | RunStarted
  | StepDone
  | Evaluated
  | CheckpointSaved
  | RunStopped
  | RunFinished;

export interface RunStarted {
  readonly type: "started";
  readonly name: string;
  readonly out: string;
  readonly model: string;
  readonly parameters: number;
  readonly data: string;
  readonly engine: string;
  readonly threads: number;
  readonly steps: number;
  readonly batch: number;
  /** The step that comes next: 0, or where a resumed run goes on. */
  readonly firstStep: number;
  /** From the start of the process to here. */
  readonly seconds: number;
}

export interface StepDone {
  readonly type: "step";
  /** Counted from 1: how many steps are done. */
  readonly step: number;
  readonly steps: number;
  /** Mean over the batch, before the update. */
  readonly loss: number;
  readonly gradientNorm: number;
  readonly learningRate: number;
  /** Samples of this step over its wall-clock time. */
  readonly samplesPerSecond: number;
  /** Undefined for data that does not come in tokens. */
  readonly tokensPerSecond: number | undefined;
  readonly secondsLeft: number;
}

export interface Evaluated {
  readonly type: "evaluated";
  readonly step: number;
  /** Mean loss over held-out samples. */
  readonly loss: number;
}

export interface CheckpointSaved {
  readonly type: "checkpoint";
  readonly step: number;
  readonly path: string;
}

export interface RunStopped {
  readonly type: "stopped";
  readonly step: number;
  readonly reason: string;
  readonly out: string;
}

export interface RunFinished {
  readonly type: "finished";
  readonly report: Report;
  readonly files: readonly string[];
  readonly out: string;
}

/** `report.json`. Losses are in nats; bits per byte only for byte-level text. */
export interface Report {
  readonly name: string;
  readonly steps: number;
  readonly samples: number;
  readonly trainLoss: number;
  readonly validationLoss: number | undefined;
  readonly tokensPerSecond: number | undefined;
  readonly samplesPerSecond: number;
  readonly parameters: number;
  readonly seconds: number;
  readonly seed: number;
  /** SHA-256 over the parameters' bytes in name order. */
  readonly weightsSha256: string;
  readonly engine: string;
  readonly threads: number;
  readonly batch: number;
  readonly bitsPerByte: BitsPerByte | undefined;
  readonly sample: string | undefined;
}

/** On the held-out text. */
export interface BitsPerByte {
  readonly model: number;
  /** A byte bigram model fitted to the training text. */
  readonly bigram: number;
  /** gzip -9 of the held-out text. */
  readonly gzip: number;
}

/** Receives every event of a run, in order. */
export type EventSink = (event: RunEvent) => void;
