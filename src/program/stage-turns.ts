/**
 * The turns of a rank of a pipeline, as stages: each waits for messages of other ranks, computes, and
 * tells others. What stages hand to each other is read in place, in the memory of the rank that made
 * it, or sent to other nodes.
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
  valueName,
  valueOf,
} from "../plan/index.ts";
import { byteLength } from "../tensor/index.ts";
import { ARRIVED, activationBuffer } from "./buffers.ts";
import {
  type Message,
  type MessageStage,
  type ProgramBuilder,
  type SignalStage,
  type SimpleStage,
  type TensorRef,
} from "./program.ts";
import { type AroundTurn, type Moved, StageMessages } from "./stage-messages.ts";

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
  /** Whether the ranks at two places of the pipeline share a node. */
  readonly isNear: (one: number, other: number) => boolean;
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
  readonly #messages: StageMessages;

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
    const { turns } = this.#planned;
    const bytesOf = (name: string) => byteLength(valueOf(step, name).type);
    const of = { turns, pieces, places: this.places, place, lanes, microBatches, bytesOf };
    this.#messages = new StageMessages({ ...of, isNear: options.isNear });
  }

  /** Of a stage: whether it is another one of this rank. */
  isBeside(stage: number, other: number): boolean {
    return other !== stage && this.places[other] === this.#options.place;
  }

  /** The parameters that the stages of a place read. */
  parametersOf(at: number): string[] {
    const { step } = this.#options;
    const own = passTasks(step).filter(({ stage }) => this.places[stage?.stage ?? -1] === at);
    const taken = own.flatMap(({ inputs }) => inputs);
    const parameters = taken
      .map((name) => ({ name, ...valueOf(step, name) }))
      .filter(({ name, of }) => name === valueName("parameter", of));
    return [...new Set(parameters.map(({ of }) => of))];
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
    const arrived = this.#messages.byteLength;
    if (arrived > 0) this.#program.buffer(ARRIVED, arrived, "host");
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
    const arrived = at === own ? undefined : this.#messages.offset(name, microBatch);
    if (arrived !== undefined) {
      return { buffer: ARRIVED, byteOffset: arrived, type: valueOf(step, name).type };
    }
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
    const numbers = new Map<string, number>();
    const turns = (this.#planned.turns[place] ?? []).flatMap((turn, index) => {
      const name = formatTurn(turn);
      const { receives, needs, sends, frees } = this.#messages.around[index] as AroundTurn;
      const ended = [...needs, ...frees];
      return [
        ...this.#begin(`${name} can receive`, receives, numbers),
        ...signal(`${name} waits`, [], turn.awaits),
        ...end(`${name} has what it reads`, ended, numbers),
        ...workOf(turn),
        ...this.#begin(`${name} is sent`, sends, numbers),
        ...signal(`${name} is done`, turn.tells, []),
      ];
    });
    const left = [...numbers.values()];
    const last: MessageStage = { name: "all is sent", mode: "messages", begins: [], ends: left };
    return left.length === 0 ? turns : [...turns, last];
  }

  #begin(name: string, messages: readonly Moved[], numbers: Map<string, number>): MessageStage[] {
    const { ranks } = this.#options;
    const begins = messages.map((message): Message => {
      const ref = this.place(message.name, message.microBatch) as TensorRef;
      const isSent = "to" in message;
      const peer = ranks[isSent ? message.to : message.from] as number;
      const begun = this.#program.message(ref, peer, isSent);
      numbers.set(keyOf(message), begun.number);
      return begun;
    });
    return begins.length === 0 ? [] : [{ name, mode: "messages", begins, ends: [] }];
  }
}

/** Waits for messages that have begun. */
function end(
  name: string,
  messages: readonly Moved[],
  numbers: Map<string, number>,
): MessageStage[] {
  const ends = messages.flatMap((message) => {
    const number = numbers.get(keyOf(message));
    numbers.delete(keyOf(message));
    return number === undefined ? [] : [number];
  });
  return ends.length === 0 ? [] : [{ name, mode: "messages", begins: [], ends }];
}

function keyOf(message: Moved): string {
  const { name, microBatch } = message;
  const peer = "to" in message ? `to ${message.to}` : `from ${message.from}`;
  return `${peer} ${microBatch} ${name}`;
}
