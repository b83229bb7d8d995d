/**
 * Parameters that no rank holds whole. They are gathered unit by unit, just before a piece of
 * computation needs them, into one of two buffers that take turns: copied out of the memory of the
 * ranks that own them, or sent by these ranks if they are of other nodes. A tensor that one rank of
 * this node owns alone is not copied: it is read in place.
 */
import type { Graph } from "../graph/index.ts";
import {
  arenaOf,
  type ComputeTask,
  cutAtUnits,
  MICRO_BATCH,
  type StepGraph,
  type StepValue,
  valueName,
  valueOf,
} from "../plan/index.ts";
import { activationBuffer, PARAMETERS, unitBuffer } from "./buffers.ts";
import { entryRef, type Layout } from "./layout.ts";
import { type Ownership, ofOwner, ownedSpans } from "./ownership.ts";
import { type PieceWork, pieceTasks } from "./pieces.ts";
import {
  allGather,
  type CollectiveStage,
  type ProgramBuilder,
  type Run,
  type RunStage,
  type Stage,
  type TensorRef,
} from "./program.ts";
import { Room } from "./room.ts";
import { copyRun } from "./runs.ts";
import { spanOf, spanRef } from "./spans.ts";

/** The number of buffers: one is filled while the one before it is used. */
const BUFFERS = 2;

/** The parameters that are gathered for a piece. */
export interface Unit {
  readonly name: string;
  /** Parameters that are read in place. */
  readonly inPlace: ReadonlyMap<string, TensorRef>;
  /** Where the others are brought together. */
  readonly room: Room;
  readonly buffer: string;
  /**
   * What fills the buffer. In place, parts are copied from all owners; else each owner copies its
   * own parts and sends them.
   */
  readonly work: readonly (RunStage | CollectiveStage)[];
}

export class Gathered {
  readonly #program: ProgramBuilder;
  readonly #parameters: Layout;
  readonly #ownership: Ownership;

  constructor(program: ProgramBuilder, parameters: Layout, ownership: Ownership) {
    this.#program = program;
    this.#parameters = parameters;
    this.#ownership = ownership;
  }

  /** @param turn counts the units of a pass */
  unit(name: string, parameters: readonly string[], turn: number): Unit {
    const { isInPlace, place, group } = this.#ownership;
    const inPlace = new Map<string, TensorRef>();
    for (const own of parameters) {
      const ref = isInPlace ? this.#atOwner(own) : undefined;
      if (ref !== undefined) inPlace.set(own, ref);
    }
    const others = parameters.filter((own) => !inPlace.has(own));
    const room = new Room(this.#parameters, others);
    const buffer = this.#program.growing(unitBuffer(turn % BUFFERS), room.byteLength);
    this.#program.shared.add(isInPlace ? PARAMETERS : buffer);
    const blocks = room.blocks(this.#ownership);
    const copied = blocks.filter(({ owner }) => isInPlace || owner === place);
    const runs = copied.map(({ owner, span }) => {
      const from = ofOwner(this.#ownership, owner, spanRef(span, PARAMETERS));
      return copyRun(this.#program, from, room.placeOf(span, buffer));
    });
    const sent = isInPlace ? [] : room.runs(this.#ownership);
    const gathers = sent.map(({ counts, ...span }) => {
      const { byteOffset } = room.placeOf(span, buffer);
      const parts = { counts, dtype: span.group.dtype };
      return allGather(name, group, parts, { buffer, byteOffset });
    });
    return { name, inPlace, room, buffer, work: [{ name, runs, mode: "parallel" }, ...gathers] };
  }

  /** A parameter in the memory of the rank that owns all of it; undefined if several own parts. */
  #atOwner(name: string): TensorRef | undefined {
    const ref = entryRef(this.#parameters, PARAMETERS, name);
    const span = spanOf(this.#parameters, name);
    const [first, ...rest] = span === undefined ? [] : ownedSpans(this.#ownership, span);
    if (ref === undefined || first === undefined || rest.length > 0) return undefined;
    return ofOwner(this.#ownership, first.owner, ref);
  }

  /** A run of a graph that takes parameters, cut into pieces for which units are gathered. */
  inPieces(
    name: string,
    graph: Graph,
    { inputs, outputs }: Pick<Run, "inputs" | "outputs">,
  ): Stage {
    const { step, task } = stepOf(name, graph, this.#parameters);
    const { step: cut, pieces } = cutAtUnits(step, task);
    const arena = arenaOf(cut, pieces);
    const activations = this.#program.growing(activationBuffer(0), arena.byteLength);
    const works = pieces.map((piece, index): PieceWork => {
      const read = piece.inputs.map((value) => valueOf(cut, value));
      const taken = read.filter(({ role }) => role === "parameter").map(({ of }) => of);
      const unit =
        taken.length === 0 ? undefined : this.unit(`parameters of ${piece.name}`, taken, index);
      const place = (value: string, bound: string): TensorRef => {
        const { role, of, type } = valueOf(cut, value);
        if (role === "activation") {
          return { buffer: activations, byteOffset: arena.offsets.get(value) ?? 0, type };
        }
        const parameter = role === "parameter" && unit ? gatheredRef(unit, of) : undefined;
        return parameter ?? inputs[bound] ?? (outputs[bound] as TensorRef);
      };
      const refs = (bound: readonly string[], values: readonly string[]) =>
        Object.fromEntries(bound.map((name, at) => [name, place(values[at] as string, name)]));
      const own = cut.graphs.get(piece.graph) as Graph;
      this.#program.graph(piece.graph, "all", () => own);
      const run: Run = {
        graph: piece.graph,
        inputs: refs(own.inputs, piece.inputs),
        outputs: refs(own.outputs, piece.outputs),
      };
      const stage: RunStage = { name: piece.name, runs: [run], mode: "ordered" };
      return { name: piece.name, work: [stage], gather: unit };
    });
    return { name, mode: "tasks", tasks: pieceTasks(works) };
  }
}

/** Where a piece finds a parameter of its unit. */
export function gatheredRef({ inPlace, room, buffer }: Unit, name: string): TensorRef | undefined {
  return inPlace.get(name) ?? room.ref(name, buffer);
}

/** A step that is nothing but one run of a graph. */
function stepOf(
  name: string,
  graph: Graph,
  { entries }: Layout,
): { readonly step: StepGraph; readonly task: ComputeTask } {
  const values = new Map<string, StepValue>();
  const declare = (role: StepValue["role"]) => (of: string) => {
    const own = entries.has(of) ? "parameter" : role;
    const type = graph.types.get(of) as StepValue["type"];
    values.set(valueName(own, of), { role: own, of, type, placement: {} });
    return valueName(own, of);
  };
  const task: ComputeTask = {
    kind: "compute",
    name,
    graph: name,
    each: MICRO_BATCH,
    inputs: graph.inputs.map(declare("batch")),
    outputs: graph.outputs.map(declare("summary")),
  };
  const graphs = new Map([[name, graph]]);
  return { step: { name, microBatches: 1, values, graphs, tasks: [task] }, task };
}
