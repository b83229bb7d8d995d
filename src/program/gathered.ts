/**
 * Parameters that no rank holds whole, brought together unit by unit, just before a piece of computation needs them, into one of two buffers
 * that take turns: copied out of the memory of the ranks that look after them, or sent by these where they are of other nodes.
 */
import type { Graph } from "../graph/index.ts";
import {
  arenaOf,
  type ComputeTask,
  cutTask,
  MICRO_BATCH,
  phasesOf,
  type StepGraph,
  type StepValue,
  valueName,
  valueOf,
} from "../plan/index.ts";
import { activationBuffer, PARAMETERS, unitBuffer } from "./buffers.ts";
import type { Layout } from "./layout.ts";
import type { Ownership } from "./ownership.ts";
import {
  COMPUTE,
  type CollectiveStage,
  type ProgramBuilder,
  type Run,
  type RunStage,
  type Stage,
  type Task,
  type TensorRef,
} from "./program.ts";
import { copyGraph } from "./runs.ts";
import { BLOCK_TILES, Spans, spanRef } from "./spans.ts";

/** Buffers that are filled while the one before is used. */
const BUFFERS = 2;
/** The lane of copies. */
export const GATHER = "gather";

/** What is gathered for a piece. */
export interface Unit {
  readonly name: string;
  readonly spans: Spans;
  readonly buffer: string;
}

export class Gathered {
  readonly #program: ProgramBuilder;
  readonly #parameters: Layout;
  readonly #ownership: Ownership;
  readonly #works = new Map<Unit, readonly (RunStage | CollectiveStage)[]>();

  constructor(program: ProgramBuilder, parameters: Layout, ownership: Ownership) {
    this.#program = program;
    this.#parameters = parameters;
    this.#ownership = ownership;
  }

  /** @param turn counts the units of a pass */
  unit(name: string, parameters: readonly string[], turn: number): Unit {
    const spans = new Spans(this.#parameters, parameters);
    const buffer = unitBuffer(turn % BUFFERS);
    const before = this.#program.buffers.get(buffer)?.byteLength ?? 0;
    this.#program.buffer(buffer, Math.max(before, spans.byteLength));
    this.#program.shared.add(this.#ownership.isInPlace ? PARAMETERS : buffer);
    return { name, spans, buffer };
  }

  /** What fills the unit's buffer. In place it is copied from all owners, else each copies its own and sends it. */
  work(unit: Unit): readonly (RunStage | CollectiveStage)[] {
    const known = this.#works.get(unit);
    if (known !== undefined) return known;
    const { name, spans, buffer } = unit;
    const { isInPlace, place, group } = this.#ownership;
    const blocks = spans.blocks(this.#ownership, BLOCK_TILES);
    const copied = blocks.filter(({ owner }) => isInPlace || owner === place);
    const runs = copied.map(({ owner, span }): Run => {
      const from = ofOwner(this.#ownership, owner, spanRef(span, PARAMETERS));
      const graph = copyGraph(this.#program, span);
      return { graph, inputs: { from }, outputs: { to: spans.placeOf(span, buffer) } };
    });
    const sent = isInPlace ? [] : spans.runs(this.#ownership);
    const gathers = sent.map(({ counts, ...span }): CollectiveStage => {
      const { byteOffset } = spans.placeOf(span, buffer);
      const call = { kind: "allGather" as const, counts, dtype: span.group.dtype };
      return { name, mode: "collective", group, call, data: { buffer, byteOffset } };
    });
    const work = [{ name, runs, mode: "parallel" as const }, ...gathers];
    this.#works.set(unit, work);
    return work;
  }

  /** A run of a graph that takes parameters, cut into pieces that each find theirs gathered. */
  inPieces(
    name: string,
    graph: Graph,
    { inputs, outputs }: Pick<Run, "inputs" | "outputs">,
  ): Stage {
    const { step, task } = stepOf(name, graph, this.#parameters);
    const { phases, phaseOf } = phasesOf(step, task);
    const { step: cut, pieces } = cutTask(step, task, (_, index) => phaseOf[index] as number);
    const arena = arenaOf(cut, pieces);
    const activations = activationBuffer(0);
    const before = this.#program.buffers.get(activations)?.byteLength ?? 0;
    this.#program.buffer(activations, Math.max(before, arena.byteLength));
    const tasks: Task[] = [];
    const used: Record<string, number> = {};
    let computed: number | undefined;
    for (const [index, piece] of pieces.entries()) {
      const names = (phases[index]?.parameters ?? []).filter((value) =>
        piece.inputs.includes(value),
      );
      const own = names.map((value) => valueOf(cut, value).of);
      const unit =
        own.length === 0 ? undefined : this.unit(`parameters of ${piece.name}`, own, index);
      const waits = [computed];
      if (unit !== undefined) {
        const free = used[unit.buffer];
        tasks.push({
          name: unit.name,
          lane: GATHER,
          after: free === undefined ? [] : [free],
          work: this.work(unit),
        });
        waits.push(tasks.length - 1);
      }
      const place = (value: string, bound: string): TensorRef => {
        const { role, of, type } = valueOf(cut, value);
        if (role === "activation") {
          return { buffer: activations, byteOffset: arena.offsets.get(value) ?? 0, type };
        }
        const gathered = role === "parameter" ? unit?.spans.ref(of, unit.buffer) : undefined;
        return gathered ?? inputs[bound] ?? (outputs[bound] as TensorRef);
      };
      const refs = (bound: readonly string[], values: readonly string[]) =>
        Object.fromEntries(bound.map((own, at) => [own, place(values[at] as string, own)]));
      this.#program.graph(piece.graph, "all", () => cut.graphs.get(piece.graph) as Graph);
      const run: Run = {
        graph: piece.graph,
        inputs: refs(piece.graphInputs, piece.inputs),
        outputs: refs(piece.graphOutputs, piece.outputs),
      };
      const after = waits.filter((at) => at !== undefined);
      tasks.push({
        name: piece.name,
        lane: COMPUTE,
        after,
        work: [{ name: piece.name, runs: [run], mode: "ordered" }],
      });
      computed = tasks.length - 1;
      if (unit !== undefined) used[unit.buffer] = computed;
    }
    return { name, mode: "tasks", tasks };
  }
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
    graphInputs: graph.inputs,
    graphOutputs: graph.outputs,
  };
  const graphs = new Map([[name, graph]]);
  return { step: { name, microBatches: 1, values, graphs, tasks: [task] }, task };
}

/** A place in the memory of the rank at a place of the node. */
export function ofOwner({ place, ranks }: Ownership, owner: number, ref: TensorRef): TensorRef {
  return owner === place ? ref : { ...ref, rank: ranks[owner] as number };
}
