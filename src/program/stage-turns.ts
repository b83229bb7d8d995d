/**
 * The turns of a rank of a pipeline, as stages: each waits for messages of other ranks, computes, and
 * tells others. What stages hand to each other is read in place, in the memory of the rank that made
 * it.
 */
import {
  type Arena,
  checkTimetable,
  exchangedIn,
  formatTurn,
  type PassTask,
  type Pipeline,
  type PlannedTimetable,
  type PlannedTurn,
  passTasks,
  planArena,
  planTimetable,
  readTimetable,
  type StagePart,
  type StepGraph,
  stageMakers,
  stageNeeds,
  valueOf,
} from "../plan/index.ts";
import { byteLength } from "../tensor/index.ts";
import { activationBuffer } from "./buffers.ts";
import {
  type ProgramBuilder,
  type SignalStage,
  type SimpleStage,
  type TensorRef,
} from "./program.ts";

export interface TurnOptions {
  readonly step: StepGraph;
  readonly pipeline: Pipeline;
  /** The ranks of the pipeline, by stage, and the stage of this one. */
  readonly ranks: readonly number[];
  readonly stage: number;
  /** The micro-batches of this pipeline, and how many are computed at once, which is one turn. */
  readonly microBatches: number;
  readonly lanes: number;
  /** Values for the end of the step that a part makes which is not the last of its stage. */
  readonly isKept: (name: string) => boolean;
}

export class StageTurns {
  /** The pieces of this rank's stage, and what is exchanged between them. */
  readonly pieces: readonly PassTask[];
  readonly #program: ProgramBuilder;
  readonly #options: TurnOptions;
  readonly #planned: PlannedTimetable;
  /** Where each stage keeps what it makes for a micro-batch. */
  readonly #arenas: readonly Arena[];
  readonly #makers: ReadonlyMap<string, StagePart>;
  /** By stage and number of the turn: the slot. */
  readonly #slots: readonly (readonly number[])[];

  /** @throws INVALID_OPTION for a timetable that does not fit */
  constructor(program: ProgramBuilder, options: TurnOptions) {
    const { step, ranks, stage, microBatches, lanes } = options;
    this.#program = program;
    this.#options = options;
    const pieces = passTasks(step);
    this.pieces = pieces.filter((piece) => piece.stage?.stage === stage);
    this.#makers = stageMakers(pieces);
    const turns = Math.ceil(microBatches / lanes);
    const size = { ranks: ranks.length, microBatches: turns, atOnce: lanes };
    const timetable = readTimetable(options.pipeline.schedule, size);
    checkTimetable(timetable, size);
    this.#planned = planTimetable(timetable, stageNeeds(pieces));
    this.#arenas = ranks.map((_, of) => this.#arenaOf(pieces, of));
    this.#slots = this.#planned.turns.map((own) => {
      const slots: number[] = [];
      for (const { microBatch, slot } of own) slots[microBatch] = slot;
      return slots;
    });
  }

  /** What other ranks read of a stage stays until the end of its backward part. */
  #arenaOf(pieces: readonly PassTask[], stage: number): Arena {
    const { step, isKept } = this.#options;
    const own = pieces.filter((piece) => piece.stage?.stage === stage);
    const made = own.flatMap(({ outputs }) => outputs);
    const others = new Set(
      pieces.filter((piece) => !own.includes(piece)).flatMap(({ inputs }) => inputs),
    );
    const kept = made.filter((name) => others.has(name) || isKept(name));
    const exchanged = exchangedIn(own);
    return planArena([...own, { inputs: kept, outputs: [] }], (name) => {
      const { role, type } = valueOf(step, name);
      const isHere = (role === "activation" && !exchanged.has(name)) || isKept(name);
      return isHere ? byteLength(type) : undefined;
    });
  }

  allocate(): void {
    const { lanes, stage } = this.#options;
    const length = Math.max(...this.#arenas.map((arena) => arena.byteLength));
    const slots = Math.max(...this.#planned.slots);
    const own = (this.#arenas[stage] as Arena).byteLength;
    for (let index = 0; index < slots * lanes; index++) {
      const name = this.#program.buffer(activationBuffer(index), length);
      this.#program.shared.add(name);
      const isUsed = index < (this.#planned.slots[stage] as number) * lanes && own > 0;
      this.#program.touches(name, isUsed ? [{ byteOffset: 0, byteLength: own }] : []);
    }
  }

  /** Where a value lies that a stage makes. @param microBatch counted from the pipeline's first */
  place(name: string, microBatch: number): TensorRef | undefined {
    const { step, lanes, ranks, stage: own } = this.#options;
    const stage = this.#makers.get(name)?.stage;
    if (stage === undefined) return undefined;
    const byteOffset = this.#arenas[stage]?.offsets.get(name);
    if (byteOffset === undefined) return undefined;
    const turn = Math.floor(microBatch / lanes);
    const slot = this.#slots[stage]?.[turn] as number;
    const buffer = activationBuffer(slot * lanes + (microBatch % lanes));
    const ref = { buffer, byteOffset, type: valueOf(step, name).type };
    return stage === own ? ref : { ...ref, rank: ranks[stage] as number };
  }

  /**
   * Turns come one after the other, so a rank waits only when it has nothing to compute.
   * @param workOf what a turn computes
   */
  stages(workOf: (turn: PlannedTurn) => readonly SimpleStage[]): SimpleStage[] {
    const { ranks, stage } = this.#options;
    const ranksOf = (places: readonly number[]) => places.map((place) => ranks[place] as number);
    const signal = (name: string, tells: readonly number[], awaits: readonly number[]) => {
      const isNone = tells.length + awaits.length === 0;
      const told: SignalStage = {
        name,
        mode: "signal",
        tells: ranksOf(tells),
        awaits: ranksOf(awaits),
      };
      return isNone ? [] : [told];
    };
    return (this.#planned.turns[stage] ?? []).flatMap((turn) => {
      const name = formatTurn(turn);
      return [
        ...signal(`${name} waits`, [], turn.awaits),
        ...workOf(turn),
        ...signal(`${name} is done`, turn.tells, []),
      ];
    });
  }
}
