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
  type StagePart,
  type StepGraph,
  stageMakers,
  stageNeeds,
  stageRanks,
  timetableOfStages,
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
  /** The ranks of the pipeline, and the place of this one among them. */
  readonly ranks: readonly number[];
  readonly place: number;
  /** The micro-batches of this pipeline, and of each pipeline of the run. */
  readonly microBatches: number;
  readonly counts: readonly number[];
  /** How many micro-batches are computed at once, which is one turn. */
  readonly lanes: number;
  /** Values for the end of the step that a part makes which is not the last of its stage. */
  readonly isKept: (name: string) => boolean;
}

export class StageTurns {
  /** By stage: the place of the rank that computes it. */
  readonly places: readonly number[];
  /** The pieces of this rank's stages, and what is exchanged between them. */
  readonly pieces: readonly PassTask[];
  readonly #program: ProgramBuilder;
  readonly #options: TurnOptions;
  readonly #planned: PlannedTimetable;
  /** The most slots that a rank of the run has. */
  readonly #mostSlots: number;
  /** Where each stage keeps what it makes for a micro-batch. */
  readonly #arenas: readonly Arena[];
  readonly #makers: ReadonlyMap<string, StagePart>;
  /** By stage and micro-batch of the timetable: the slot. */
  readonly #slots: readonly (readonly number[])[];

  /** @throws INVALID_OPTION for a timetable that does not fit */
  constructor(program: ProgramBuilder, options: TurnOptions) {
    const { step, ranks, place, microBatches, counts, lanes } = options;
    this.#program = program;
    this.#options = options;
    const pieces = passTasks(step);
    this.#makers = stageMakers(pieces);
    const { schedule } = options.pipeline;
    const needs = stageNeeds(pieces);
    const parts = pieces.map(({ stage }) => stage);
    const planOf = (count: number) => {
      const turns = Math.ceil(count / lanes);
      const size = { ranks: ranks.length, microBatches: turns, atOnce: lanes };
      const timetable = timetableOfStages(schedule, size, parts);
      checkTimetable(timetable, size);
      return planTimetable(timetable, needs);
    };
    this.places = stageRanks(schedule, ranks.length);
    this.pieces = pieces.filter((piece) => this.places[piece.stage?.stage as number] === place);
    this.#planned = planOf(microBatches);
    // All ranks of a run have the same shared buffers.
    const slotsOf = (count: number) => planOf(count).slots;
    this.#mostSlots = Math.max(...[...new Set(counts)].flatMap(slotsOf));
    this.#arenas = this.places.map((_, stage) => this.#arenaOf(pieces, stage));
    const slots = this.places.map((): number[] => []);
    for (const { stage, microBatch, slot } of this.#planned.turns.flat()) {
      (slots[stage] as number[])[microBatch] = slot;
    }
    this.#slots = slots;
  }

  /** Of a stage: whether it is another one of this rank. */
  isBeside(stage: number, other: number): boolean {
    return other !== stage && this.places[other] === this.#options.place;
  }

  /** What other stages read of a stage stays until the end of its backward part. */
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
    const { lanes, place } = this.#options;
    const length = Math.max(...this.#arenas.map((arena) => arena.byteLength));
    const turns = this.#planned.turns[place] ?? [];
    for (let index = 0; index < this.#mostSlots * lanes; index++) {
      const name = this.#program.buffer(activationBuffer(index), length);
      this.#program.shared.add(name);
      const stages = turns.filter(({ slot }) => slot === Math.floor(index / lanes));
      const used = stages.map(({ stage }) => (this.#arenas[stage] as Arena).byteLength);
      const most = Math.max(0, ...used);
      this.#program.touches(name, most > 0 ? [{ byteOffset: 0, byteLength: most }] : []);
    }
  }

  /** Where a value lies that a stage makes. @param microBatch counted from the pipeline's first */
  place(name: string, microBatch: number): TensorRef | undefined {
    const { step, lanes, ranks, place: own } = this.#options;
    const stage = this.#makers.get(name)?.stage;
    if (stage === undefined) return undefined;
    const at = this.places[stage] as number;
    const byteOffset = this.#arenas[stage]?.offsets.get(name);
    if (byteOffset === undefined) return undefined;
    const turn = Math.floor(microBatch / lanes);
    const slot = this.#slots[stage]?.[turn] as number;
    const buffer = activationBuffer(slot * lanes + (microBatch % lanes));
    const ref = { buffer, byteOffset, type: valueOf(step, name).type };
    return at === own ? ref : { ...ref, rank: ranks[at] as number };
  }

  /**
   * Turns come one after the other, so a rank waits only when it has nothing to compute.
   * @param workOf what a turn computes
   */
  stages(workOf: (turn: PlannedTurn) => readonly SimpleStage[]): SimpleStage[] {
    const { ranks, place } = this.#options;
    const ranksOf = (places: readonly number[]) => places.map((at) => ranks[at] as number);
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
    return (this.#planned.turns[place] ?? []).flatMap((turn) => {
      const name = formatTurn(turn);
      return [
        ...signal(`${name} waits`, [], turn.awaits),
        ...workOf(turn),
        ...signal(`${name} is done`, turn.tells, []),
      ];
    });
  }
}
