/** The events of a run, as one typed union. Code that shows, stores or counts events is a sink. */

export type RunEvent =
  | RunStarted
  | RunChanged
  | MembershipChanged
  | GenerationBegun
  | StepRepeated
  | StateHealed
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
  /** For a model from a file: one line that says which parameters are trained and which are not. */
  readonly trains?: string;
  readonly data: string;
  readonly engine: string;
  readonly workers: number;
  /** The number of threads of each worker. */
  readonly threads: number;
  /**
   * How workers share a step, and the reason: a sentence. Not there for one worker that computes a
   * step as it is.
   */
  readonly sharing?: string;
  /**
   * The number of micro-batches of a step that each worker computes at first, by rank; of workers
   * that divide the model, those that they compute together, once.
   */
  readonly shares: readonly number[];
  /** The measured network between the machines of the run, if there are several. */
  readonly network?: NetworkFacts;
  readonly steps: number;
  readonly batch: number;
  /** The next step: 0, or the step at which a resumed run continues. */
  readonly firstStep: number;
  /** Seconds from the start of the process to this event. */
  readonly seconds: number;
  /** Sentences that say what is special about this model or its export. */
  readonly notes: readonly string[];
}

export interface NetworkFacts {
  readonly machines: number;
  /**
   * Time of a message without content, measured before the first step. The rate of a link is
   * measured then, too.
   */
  readonly messageUs: number;
  readonly bytesPerSecond: number;
  /** The number of buckets in which gradients are sent. */
  readonly buckets: number;
}

/** A resumed run differs from here on from what it was before, because its options were changed. */
export interface RunChanged {
  readonly type: "changed";
  /** The number of steps done. */
  readonly step: number;
  readonly changes: readonly {
    readonly name: string;
    readonly before: string;
    readonly now: string;
  }[];
}

/** Workers were lost, came or left, with the reason. */
export interface MembershipChanged {
  readonly type: "membership";
  /** What it is about: `lost`, `left`, `aside`, `generation`, `waiting` and so on. */
  readonly about: string;
  /** The number of the worker, which no other worker of the run gets. */
  readonly worker?: number;
  /** One sentence or more. */
  readonly text: string;
}

/** The run goes on with other workers. */
export interface GenerationBegun {
  readonly type: "generation";
  /** The number of steps done. */
  readonly step: number;
  readonly workers: number;
  /**
   * The number of micro-batches of a step that each worker computes at first, by rank; of workers
   * that divide the model, those that they compute together, once.
   */
  readonly shares: readonly number[];
}

/** A step is made again, because a worker was lost in it before it was committed. */
export interface StepRepeated {
  readonly type: "repeated";
  /** Counted from 1, as in `StepDone`. */
  readonly step: number;
}

/** Weights or optimizer state of a worker had changed by themselves, and are right again. */
export interface StateHealed {
  readonly type: "healed";
  /** The number of steps done. */
  readonly step: number;
  /** The worker, by its rank, and the one whose bytes it has now. */
  readonly rank: number;
  readonly from: number;
  /** The number of steps done when everything was found right for the last time. */
  readonly since: number;
  /** Whether no step was committed that the wrong bytes had a part in. */
  readonly isExact: boolean;
}

/** Something that a person should know and that does not stop the run. */
export interface Notice {
  readonly type: "notice";
  /** A sentence. */
  readonly text: string;
}

export interface StepDone {
  readonly type: "step";
  /** The number of steps done, so it counts from 1. */
  readonly step: number;
  readonly steps: number;
  /** The loss of the whole batch, before the update. */
  readonly loss: number;
  readonly gradientNorm: number;
  readonly learningRate: number;
  /** The samples of this step divided by its wall-clock time. */
  readonly samplesPerSecond: number;
  /** Undefined for data that does not consist of tokens. */
  readonly tokensPerSecond: number | undefined;
  readonly secondsLeft: number;
}

/**
 * The workers are not equally fast: they compute different numbers of micro-batches after this
 * step, or one of them is far below the rest.
 */
export interface SharesChanged {
  readonly type: "shared";
  /** The number of steps done. */
  readonly step: number;
  /** Says how fast each worker was and how many micro-batches it computes now, or who is slow. */
  readonly reason: string;
}

export interface Evaluated {
  readonly type: "evaluated";
  readonly step: number;
  /** The loss over all held-out samples that are evaluated, as if they were one batch. */
  readonly loss: number;
  /** Other numbers that the model gives for the same samples, such as an accuracy. */
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

/** Someone asked for a stop; the current step is being finished. */
export interface RunStopping {
  readonly type: "stopping";
}

export interface RunStopped {
  readonly type: "stopped";
  /** The number of steps done. */
  readonly step: number;
  readonly steps: number;
  readonly out: string;
  /** The files that hold the run's present state; empty if it was stopped before its first step. */
  readonly files: readonly string[];
}

/** An error ended the run. */
export interface RunFailed {
  readonly type: "failed";
  /** The number of steps done. */
  readonly step: number;
  readonly code: string;
  readonly out: string;
  /** Files that hold the weights after the last good step. */
  readonly files: readonly string[];
}

/** A run that was to be resumed had no steps left to do. */
export interface RunComplete {
  readonly type: "complete";
  /** The number of steps done, and the number that was asked for. */
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

/**
 * The content of `report.json`. Losses are in nats. A value that a run does not have is null, so
 * that every field always exists.
 */
export interface Report {
  readonly name: string;
  readonly steps: number;
  readonly samples: number;
  /** The loss of the last step. */
  readonly trainLoss: number;
  /** Null when nothing is held out. */
  readonly validationLoss: number | null;
  /**
   * Tokens divided by all seconds, validation included. Null for data that does not consist of
   * tokens.
   */
  readonly tokensPerSecond: number | null;
  readonly samplesPerSecond: number;
  readonly parameters: number;
  /**
   * Seconds from the start to the validation after the last step, over all parts of a resumed run.
   */
  readonly seconds: number;
  readonly seed: number;
  /** The SHA-256 of the parameters' bytes, in the order of their names. */
  readonly weightsSha256: string;
  readonly engine: string;
  readonly workers: number;
  /** The number of threads of each worker. */
  readonly threads: number;
  readonly batch: number;
  /** Null unless a token is a byte. */
  readonly bitsPerByte: BitsPerByte | null;
  readonly sample: string | null;
  /** The only batch size that `model.onnx` takes; "any" if it takes all. */
  readonly modelBatch: number | "any";
  /** Sentences that say what is special about this model or its export. */
  readonly notes: readonly string[];
  /** What happened to the workers of this part of the run, and which samples it committed. */
  readonly history: History & Samples;
}

/** What the ledger of the run says of the samples of its committed steps. */
export interface Samples {
  /** Positions of the sample order that the weights are made of, each once; over all parts. */
  readonly samplesCommitted: number;
  /**
   * Samples of steps that were committed, and told in metrics.jsonl, and lost when the run fell back
   * to a checkpoint: they were computed again. 0 unless the run fell back; over all parts.
   */
  readonly samplesRepeated: number;
}

/** What happened to the workers of a run. */
export interface History {
  readonly workersLost: number;
  /** Workers that came after the first step. */
  readonly workersJoined: number;
  readonly generations: number;
  /**
   * Steps that were made again, because a worker was lost before they were committed, or because
   * the run went back to its checkpoint.
   */
  readonly stepsRepeated: number;
  /** From each loss that was noticed to the next committed step; the last 1,000. */
  readonly recoverySeconds: readonly number[];
}

/** Before the first generation. */
export const NO_HISTORY: History = {
  workersLost: 0,
  workersJoined: 0,
  generations: 0,
  stepsRepeated: 0,
  recoverySeconds: [],
};

/** Bits per byte of the held-out text. */
export interface BitsPerByte {
  readonly model: number;
  /** The result of a byte bigram model that was fitted to the training text. */
  readonly bigram: number;
  /** The result of gzip -9 on the held-out text. */
  readonly gzip: number;
}

/** Receives every event of a run, in order. */
export type EventSink = (event: RunEvent) => void;
