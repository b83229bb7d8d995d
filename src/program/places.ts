/** Where the values of a step lie in the buffers of a rank. */
import { assert } from "../errors.ts";
import type { Graph } from "../graph/index.ts";
import {
  type Arena,
  arenaOf,
  type ComputeTask,
  GRADIENT,
  passTasks,
  type StepGraph,
  valueName,
  valueOf,
} from "../plan/index.ts";
import { byteLength, bytesPerElement, elementCount, type TensorType } from "../tensor/index.ts";
import {
  activationBuffer,
  countedBuffer,
  fieldBuffer,
  GIVEN_TOTALS,
  GRADIENTS,
  LOSSES,
  PARAMETERS,
  stateBuffer,
  TOTALS,
  UNUSED_STATES,
} from "./buffers.ts";
import type { Exchanges } from "./exchanges.ts";
import type { FlatVectors } from "./flat.ts";
import { entryRef, type Layout, planLayout } from "./layout.ts";
import type { ProgramBuilder, Run, TensorRef } from "./program.ts";
import { rowsRef } from "./runs.ts";

/** Which of several places of a value is meant. */
export interface At {
  /** Of values that each micro-batch has for itself; counted from the rank's first. */
  readonly microBatch: number;
  readonly lane: number;
  /** Which set of states is read; the other is written. */
  readonly from: number;
}

export const FIRST: At = { microBatch: 0, lane: 0, from: 0 };

/** The places of values that are summed over micro-batches; undefined for other values. */
export type SumPlaces = (name: string, at: At) => TensorRef | undefined;

export interface PlacesOptions {
  readonly step: StepGraph;
  readonly vectors: FlatVectors;
  /** The micro-batches of this rank, by their places in the step. */
  readonly own: readonly number[];
  readonly sums: SumPlaces;
  readonly exchanges?: Exchanges | undefined;
}

/** A micro-batch stays on one thread, so that its bits do not depend on how many there are. */
export function threadsOf({ microBatches }: StepGraph): 1 | "all" {
  return microBatches === 1 ? "all" : 1;
}

export class Places {
  readonly states: Layout;
  /** What the pieces of a micro-batch hand on. */
  readonly arena: Arena;
  readonly #options: PlacesOptions;
  /** Terms of the loss of a batch that is computed whole: nothing is summed with them. */
  readonly #terms: Layout;
  /** What every micro-batch is given of the whole batch. */
  readonly #totals: Layout;

  constructor(options: PlacesOptions) {
    const { step } = options;
    this.#options = options;
    this.states = planLayout(this.#itemsOf("state"), 64);
    this.#terms = planLayout(step.microBatches === 1 ? this.#itemsOf("term") : [], 64);
    const given = this.#itemsOf("total").filter(({ name }) => !/^(all )?parts$/.test(name));
    this.#totals = planLayout(given, 64);
    // Stages keep what they hand on themselves.
    this.arena = arenaOf(step, step.pipeline === undefined ? passTasks(step) : []);
  }

  /** @param lanes micro-batches that run at once */
  allocate(program: ProgramBuilder, lanes: number): void {
    const { step, vectors } = this.#options;
    program.buffer(PARAMETERS, vectors.parameters.byteLength, vectors.spaces.parameters);
    for (const side of [0, 1]) program.buffer(stateBuffer(side), this.states.byteLength);
    if (step.microBatches > 1) program.buffer(UNUSED_STATES, this.states.byteLength);
    else program.buffer(LOSSES, this.#terms.byteLength);
    for (const { buffer, type } of this.batchRefs().values()) {
      program.buffer(buffer, byteLength(type), "host");
    }
    if (this.#totals.entries.size > 0) {
      program.buffer(GIVEN_TOTALS, this.#totals.byteLength);
      program.buffer(TOTALS, byteLength(valueOf(step, valueName("total", "all parts")).type));
    }
    for (const { name, type } of this.#itemsOf("counted")) {
      program.buffer(countedRef(name, type).buffer, byteLength(type), "host");
    }
    if (this.arena.byteLength === 0) return;
    for (let lane = 0; lane < lanes; lane++) {
      program.buffer(activationBuffer(lane), this.arena.byteLength);
    }
  }

  /** This rank's part of the fields of a batch, micro-batch after micro-batch. */
  batchRefs(): Map<string, TensorRef> {
    const { step, own } = this.#options;
    return new Map(
      this.#itemsOf("batch").map(({ name, type: { dtype, shape } }) => {
        const [rows = 1, ...rest] = shape;
        const type = { dtype, shape: [(rows / step.microBatches) * own.length, ...rest] };
        return [name, { buffer: fieldBuffer("batch", name), byteOffset: 0, type }];
      }),
    );
  }

  ref(name: string, at: At = FIRST): TensorRef {
    const found = this.#options.sums(name, at) ?? this.#find(name, at);
    assert(found !== undefined, `"${name}" has a place`);
    return found;
  }

  /** One run of a task. */
  run(task: ComputeTask, at: At): Run {
    const graph = this.#options.step.graphs.get(task.graph) as Graph;
    const refs = (names: readonly string[], values: readonly string[]) =>
      Object.fromEntries(names.map((name, index) => [name, this.ref(values[index] as string, at)]));
    return {
      graph: task.graph,
      inputs: refs(graph.inputs, task.inputs),
      outputs: refs(graph.outputs, task.outputs),
    };
  }

  /** The pieces of a micro-batch as one run of the whole gradient graph, whose names they keep. */
  wholeRun(pieces: readonly ComputeTask[], at: At): Run {
    const graph = this.#options.step.graphs.get(GRADIENT) as Graph;
    const runs = pieces.map((piece) => this.run(piece, at));
    const places: Run["inputs"] = Object.assign(
      {},
      ...runs.flatMap(({ inputs, outputs }) => [inputs, outputs]),
    );
    const pick = (names: readonly string[]) =>
      Object.fromEntries(names.map((name) => [name, places[name] as TensorRef]));
    return { graph: GRADIENT, inputs: pick(graph.inputs), outputs: pick(graph.outputs) };
  }

  #itemsOf(stage: string) {
    const { values } = this.#options.step;
    const own = [...values].filter(([name, { of }]) => name === valueName(stage, of));
    return own.map(([, { of, type }]) => ({ name: of, type, group: stage }));
  }

  #find(name: string, { microBatch, lane, from }: At): TensorRef | undefined {
    const { step, vectors } = this.#options;
    const { of, type } = valueOf(step, name);
    switch (name.slice(0, name.length - of.length - 1)) {
      case "batch":
        return rowsRef(fieldBuffer("batch", of), this.#ofMicroBatch(type), microBatch);
      case "parameter":
        return entryRef(vectors.parameters, PARAMETERS, of);
      case "state":
        return entryRef(this.states, stateBuffer(from), of);
      case "next state": {
        // Of what is not averaged, that of a rank's first micro-batch holds.
        const isUnused = step.microBatches > 1 && microBatch > 0;
        return entryRef(this.states, isUnused ? UNUSED_STATES : stateBuffer(1 - from), of);
      }
      case "activation": {
        const given = this.#options.exchanges?.place(name, lane);
        if (given !== undefined) return given;
        const byteOffset = this.arena.offsets.get(name) ?? 0;
        return { buffer: activationBuffer(lane), byteOffset, type };
      }
      case "total":
        return this.#total(of, type, microBatch) ?? entryRef(this.#totals, GIVEN_TOTALS, of);
      case "counted":
        return countedRef(of, type);
      case "gradient":
        return entryRef(vectors.gradients, GRADIENTS, of);
      case "term":
        return entryRef(vectors.gradients, GRADIENTS, name) ?? entryRef(this.#terms, LOSSES, of);
      default:
        return entryRef(vectors.gradients, GRADIENTS, name);
    }
  }

  #ofMicroBatch({ dtype, shape: [rows = 1, ...rest] }: TensorType): TensorType {
    return { dtype, shape: [rows / this.#options.step.microBatches, ...rest] };
  }

  /** A row for each micro-batch of the step, or all rows. */
  #total(of: string, type: TensorType, microBatch: number): TensorRef | undefined {
    if (of === "all parts") return { buffer: TOTALS, byteOffset: 0, type };
    if (of !== "parts") return undefined;
    const { dtype, shape } = type;
    const own: TensorType = { dtype, shape: shape.slice(1) };
    const row = this.#options.own[microBatch] as number;
    const byteOffset = row * elementCount(own.shape) * bytesPerElement(dtype);
    return { buffer: TOTALS, byteOffset, type: own };
  }
}

/** The trainer reads and writes these in each step. */
function countedRef(of: string, type: TensorType): TensorRef {
  return { buffer: countedBuffer(of), byteOffset: 0, type };
}
