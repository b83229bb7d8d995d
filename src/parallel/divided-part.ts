/** What a worker has of a model that workers divide, in numbers. */
import type { Work } from "../ops/index.ts";
import type { Needs, PassMemory, StepFacts, Timetable, Turn } from "../plan/index.ts";

/** What goes between the workers that divide a model, for a micro-batch. */
export interface Exchanged {
  readonly seconds: number;
  /** What a worker takes of others. */
  readonly bytes: number;
  /** The memory in which it gives, for a micro-batch that runs. */
  readonly given: number;
}

export interface ModelPart {
  readonly facts: StepFacts;
  /** Of a micro-batch: what pieces pass on, and the most inside one of them. */
  readonly pass: PassMemory;
  readonly exchanged: Exchanged;
  /** The bytes of parameters that lie with other stages, and are brought here. */
  readonly brought: number;
  /**
   * The bytes that a worker takes of others, once a step, to sum the gradients of parameters that
   * several have, each for a part of the same samples.
   */
  readonly termsRead: number;
}

export interface DividedPipeline {
  readonly timetable: (size: {
    readonly ranks: number;
    readonly microBatches: number;
  }) => Timetable;
  readonly needs: Needs;
  /** Of one micro-batch. */
  readonly workOf: (turn: Turn) => readonly Work[];
  readonly exchangedIn: (turn: Turn) => number;
  /** The bytes that a stage keeps of a micro-batch. */
  readonly keptOf: (stage: number) => number;
}

export interface DividedStep {
  /** By rank of the pipeline; one part without a pipeline. */
  readonly parts: readonly ModelPart[];
  readonly pipeline: DividedPipeline | undefined;
}
