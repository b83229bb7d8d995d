/** What can happen in a run: one typed union. Those who show it, keep it or count it are sinks. */

export type RunEvent =
  | RunStarted
  | RunChanged
  | Notice
  | StepDone
  | SharesChanged
  | Evaluated
  | CheckpointSaved
  | RunStopping
  | RunStopped
  | RunFailed
  | RunComplete
  | RunFinishing
  | RunFinished;

export interface RunStarted {
  readonly type: "started";
  readonly name: string;
  readonly out: string;
  readonly model: string;
  readonly parameters: number;
  /** What is trained of a model from a file, and what is not, in one line. */
  readonly trains?: string;
  readonly data: string;
  readonly engine: string;
  readonly workers: number;
  /** Of each worker. */
  readonly threads: number;
  /** How many of a step's micro-batches each worker computes at first, by rank. */
  readonly shares: readonly number[];
  /** What lies between the machines of the run, where there are several. */
  readonly network?: NetworkFacts;
  readonly steps: number;
  readonly batch: number;
  /** The step that comes next: 0, or where a resumed run goes on. */
  readonly firstStep: number;
  /** From the start of the process to here. */
  readonly seconds: number;
  /** Sentences: what is special about this model or its export. */
  readonly notes: readonly string[];
}

export interface NetworkFacts {
  readonly machines: number;
  /** Measured before the first step: a message without content, and what a link moves. */
  readonly messageUs: number;
  readonly bytesPerSecond: number;
  /** In how many pieces gradients travel. */
  readonly buckets: number;
}

/** A run that goes on is another from here on than it was before, because that was asked for. */
export interface RunChanged {
  readonly type: "changed";
  /** Steps done. */
  readonly step: number;
  readonly changes: readonly {
    readonly name: string;
    readonly before: string;
    readonly now: string;
  }[];
}

/** Something that a person should know and that stops nothing. */
export interface Notice {
  readonly type: "notice";
  /** A sentence. */
  readonly text: string;
}

export interface StepDone {
  readonly type: "step";
  /** Counted from 1: how many steps are done. */
  readonly step: number;
  readonly steps: number;
  /** Of the whole batch, before the update. */
  readonly loss: number;
  readonly gradientNorm: number;
  readonly learningRate: number;
  /** Samples of this step over its wall-clock time. */
  readonly samplesPerSecond: number;
  /** Undefined for data that does not come in tokens. */
  readonly tokensPerSecond: number | undefined;
  readonly secondsLeft: number;
}

/** Workers share the steps after this one in another way, because they are not equally fast. */
export interface SharesChanged {
  readonly type: "shared";
  /** Steps done. */
  readonly step: number;
  /** A sentence: how fast each was, and what each computes now. */
  readonly reason: string;
}

export interface Evaluated {
  readonly type: "evaluated";
  readonly step: number;
  /** Of all held-out samples that are looked at, as one batch. */
  readonly loss: number;
  /** Other numbers that the model gives, of the same samples: an accuracy. */
  readonly measures?: Readonly<Record<string, number>>;
}

export interface CheckpointSaved {
  readonly type: "checkpoint";
  readonly step: number;
  readonly path: string;
}

/** All steps are done; the model is exported and compared, and a sample is generated. */
export interface RunFinishing {
  readonly type: "finishing";
}

/** Someone asked for a stop; the step at hand is being finished. */
export interface RunStopping {
  readonly type: "stopping";
}

export interface RunStopped {
  readonly type: "stopped";
  /** Steps done. */
  readonly step: number;
  readonly steps: number;
  readonly out: string;
  /** Files that hold the run as it is now; none when it was stopped before its first step. */
  readonly files: readonly string[];
}

/** An error ended the run. */
export interface RunFailed {
  readonly type: "failed";
  /** Steps done. */
  readonly step: number;
  readonly code: string;
  readonly out: string;
  /** Files that hold the weights after the last good step. */
  readonly files: readonly string[];
}

/** A run that was to go on had nothing left to do. */
export interface RunComplete {
  readonly type: "complete";
  /** Steps done, and steps asked for. */
  readonly step: number;
  readonly steps: number;
  readonly out: string;
}

export interface RunFinished {
  readonly type: "finished";
  readonly report: Report;
  readonly files: readonly string[];
  readonly out: string;
}

/** `report.json`. Losses are in nats. What a run does not have is null, so that every field is always there. */
export interface Report {
  readonly name: string;
  readonly steps: number;
  readonly samples: number;
  /** Of the last step. */
  readonly trainLoss: number;
  /** Null when nothing is held out. */
  readonly validationLoss: number | null;
  /** Over all seconds, validation included. Null for data that does not come in tokens. */
  readonly tokensPerSecond: number | null;
  readonly samplesPerSecond: number;
  readonly parameters: number;
  /** From start to the last step's validation, over all parts of a resumed run. */
  readonly seconds: number;
  readonly seed: number;
  /** SHA-256 over the parameters' bytes in name order. */
  readonly weightsSha256: string;
  readonly engine: string;
  readonly workers: number;
  /** Of each worker. */
  readonly threads: number;
  readonly batch: number;
  /** Null unless a token is a byte. */
  readonly bitsPerByte: BitsPerByte | null;
  readonly sample: string | null;
  /** The only batch size that `model.onnx` takes; "any" if it takes all. */
  readonly modelBatch: number | "any";
  /** Sentences: what is special about this model or its export. */
  readonly notes: readonly string[];
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
